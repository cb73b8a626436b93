//! `comfy-serve health`: a container's HEALTHCHECK without any tool in the image.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// As SageMaker allows.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks /ping.
///
/// # Errors
/// No answer in time, or another one than 200; the error says which.
pub fn check(server: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&server, LIMIT)?;
    connection.set_read_timeout(Some(LIMIT))?;
    connection.set_write_timeout(Some(LIMIT))?;
    connection.write_all(format!("GET /ping HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").as_bytes())?;
    // The status line is all that matters, and it comes in the first packet.
    let mut answer = [0; 256];
    let read = connection.read(&mut answer)?;
    let line = String::from_utf8_lossy(&answer[..read]);
    match line.split_ascii_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some(status) => Err(io::Error::other(format!("/ping answered {status}"))),
        None => Err(io::Error::other("/ping did not answer as HTTP does")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answering(with: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            let _ = connection.read(&mut request);
            connection.write_all(with.as_bytes()).expect("written");
        });
        address
    }

    #[test]
    fn only_200_is_healthy() {
        assert!(check(answering("HTTP/1.1 200 OK\r\n\r\n")).is_ok());
        let down = check(answering("HTTP/1.1 503 Service Unavailable\r\n\r\n")).expect_err("unhealthy");
        assert_eq!(down.to_string(), "/ping answered 503");
        assert!(check(answering("")).is_err());
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
        assert!(check(nobody).is_err());
    }
}
