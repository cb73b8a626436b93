//! The JSON envelope: the contract of `--output json`.

use serde_json::{Value as Json, json};

use crate::error::Error;

/// `{"ok","command","version","data","error"}` as one line. `data` is null on failure, `error` on success.
pub fn envelope(command: &str, result: Result<Json, &Error>) -> String {
    let (ok, data, error) = match result {
        Ok(data) => (true, data, Json::Null),
        Err(error) => (false, Json::Null, error_json(error)),
    };
    json!({
        "ok": ok,
        "command": command,
        "version": env!("CARGO_PKG_VERSION"),
        "data": data,
        "error": error,
    })
    .to_string()
}

fn error_json(error: &Error) -> Json {
    let service = error.aws().map(|s| {
        json!({
            "operation": s.operation,
            "code": s.code,
            "message": s.message,
            "request_id": s.request_id,
            "status": s.status,
        })
    });
    json!({
        "code": error.kind().code(),
        "message": error.what(),
        "hint": error.hint(),
        "details": {
            "exit_code": error.kind().exit_code(),
            "reasons": error.reasons(),
            "service": service,
        },
    })
}
