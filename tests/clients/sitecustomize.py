"""Shortens every pause, by PYTHONPATH: the waiters of boto3 and awscli pause as AWS's own pace asks, 30 seconds for a stack."""

import time

LONGEST = 0.2
_sleep = time.sleep
time.sleep = lambda seconds: _sleep(min(seconds, LONGEST))
