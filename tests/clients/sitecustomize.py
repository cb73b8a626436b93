"""Shortens every pause, by PYTHONPATH: the waiters of boto3 and awscli ask for a stack every 30 seconds only."""

import time

LONGEST = 0.2
_sleep = time.sleep
time.sleep = lambda seconds: _sleep(min(seconds, LONGEST))
