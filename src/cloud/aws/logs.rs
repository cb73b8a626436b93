//! CloudWatch Logs.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_cloudwatchlogs::types::OrderBy;

use super::errors::{Context, code};
use crate::cloud::Logs;
use crate::error::Result;

/// An endpoint's group has one stream per instance and data log; the newest few hold what happened last.
const STREAMS: i32 = 5;
/// The most events GetLogEvents returns at once.
const PAGE: usize = 10_000;

/// [`Logs`] on CloudWatch Logs.
pub(super) struct CloudWatchLogs {
    client: aws_sdk_cloudwatchlogs::Client,
    context: Arc<Context>,
}

impl CloudWatchLogs {
    pub(super) fn new(client: aws_sdk_cloudwatchlogs::Client, context: Arc<Context>) -> Self {
        CloudWatchLogs { client, context }
    }
}

const ABSENT: &str = "ResourceNotFoundException";

/// The newest `limit` lines of several streams, oldest first; lines of one moment keep their order.
fn newest(mut lines: Vec<(i64, String)>, limit: usize) -> Vec<String> {
    lines.sort_by_key(|(at, _)| *at);
    let skip = lines.len().saturating_sub(limit);
    lines.into_iter().skip(skip).map(|(_, line)| line).collect()
}

#[async_trait]
impl Logs for CloudWatchLogs {
    async fn tail(&self, group: &str, limit: usize) -> Result<Option<Vec<String>>> {
        let what = || format!("cannot read log group {group}");
        let streams = self
            .client
            .describe_log_streams()
            .log_group_name(group)
            .order_by(OrderBy::LastEventTime)
            .descending(true)
            .limit(STREAMS)
            .send()
            .await;
        let streams = match streams {
            Ok(answer) => answer.log_streams.unwrap_or_default(),
            Err(e) if code(&e) == ABSENT => return Ok(None),
            Err(e) => return Err(self.context.explain("logs:DescribeLogStreams", what(), &e)),
        };
        let page = i32::try_from(limit.clamp(1, PAGE)).unwrap_or(i32::MAX);
        let mut lines = Vec::new();
        for name in streams.into_iter().filter_map(|s| s.log_stream_name) {
            let answer = self
                .client
                .get_log_events()
                .log_group_name(group)
                .log_stream_name(name)
                .start_from_head(false)
                .limit(page)
                .send()
                .await;
            match answer {
                Ok(answer) => lines.extend(answer.events.unwrap_or_default().into_iter().map(|event| {
                    let text = event.message.unwrap_or_default();
                    (event.timestamp.unwrap_or_default(), text.trim_end().to_owned())
                })),
                // The stream went away in between.
                Err(e) if code(&e) == ABSENT => {}
                Err(e) => return Err(self.context.explain("logs:GetLogEvents", what(), &e)),
            }
        }
        Ok(Some(newest(lines, limit)))
    }

    async fn set_retention(&self, group: &str, days: i32) -> Result<bool> {
        match self.client.put_retention_policy().log_group_name(group).retention_in_days(days).send().await {
            Ok(_) => Ok(true),
            Err(e) if code(&e) == ABSENT => Ok(false),
            Err(e) => {
                let what = format!("cannot set the retention of log group {group}");
                Err(self.context.explain("logs:PutRetentionPolicy", what, &e))
            }
        }
    }

    async fn delete_group(&self, group: &str) -> Result<()> {
        match self.client.delete_log_group().log_group_name(group).send().await {
            Ok(_) => Ok(()),
            Err(e) if code(&e) == ABSENT => Ok(()),
            Err(e) => Err(self.context.explain("logs:DeleteLogGroup", format!("cannot delete log group {group}"), &e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn streams_merge_by_time_and_the_oldest_go_first() {
        let lines = vec![(3, "c".to_owned()), (5, "e".into()), (1, "a".into()), (3, "d".into()), (2, "b".into())];
        assert_eq!(newest(lines.clone(), 3), ["c", "d", "e"]);
        assert_eq!(newest(lines, 99).len(), 5);
    }
}
