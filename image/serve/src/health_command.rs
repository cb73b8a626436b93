//! `comfy-serve health`: asks the server in the same container, for the image's HEALTHCHECK. Docker has no way to ask by
//! itself, and the image has no HTTP client that starts as quickly.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Limit of each step. /ping is answered from memory; the image gives the whole command three seconds.
const LIMIT: Duration = Duration::from_secs(2);

/// Options of `health`.
#[derive(Debug, clap::Args)]
pub struct Health {
    /// Where the server listens.
    #[arg(long, env = "COMFY_SERVE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// Asks /ping once.
///
/// # Errors
/// No server, no answer in time, or another status than 200.
pub fn run(options: &Health) -> io::Result<()> {
    let mut address = options.listen;
    // "Every interface" is no address to connect to, though Linux lets it pass.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let explained = |cause: io::Error| io::Error::new(cause.kind(), format!("{address} does not answer: {cause}"));
    let status = ask(address).map_err(explained)?;
    if status.ends_with(b" 200") {
        return Ok(());
    }
    Err(io::Error::other(format!("/ping of {address} says {}", String::from_utf8_lossy(&status))))
}

/// The beginning of the answer: `HTTP/1.1 200`.
fn ask(address: SocketAddr) -> io::Result<[u8; 12]> {
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    socket.write_all(format!("GET /ping HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut status = [0; 12];
    socket.read_exact(&mut status)?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server on a free port that gives one answer.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a caller");
            let mut question = [0; 4096];
            let read = socket.read(&mut question).expect("a question");
            assert!(question[..read].starts_with(b"GET /ping HTTP/1.1\r\n"));
            socket.write_all(answer.as_bytes()).expect("answered");
        });
        address
    }

    fn says(answer: &'static str) -> Result<(), String> {
        let mut listen = server(answer);
        listen.set_ip(Ipv4Addr::UNSPECIFIED.into());
        run(&Health { listen }).map_err(|error| error.to_string())
    }

    #[test]
    fn only_200_is_healthy() {
        assert_eq!(says("HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        let unwell = says("HTTP/1.1 503 Service Unavailable\r\n\r\n").expect_err("not healthy");
        assert!(unwell.ends_with("HTTP/1.1 503"), "{unwell}");
        assert!(says("nonsense").is_err());
    }

    #[test]
    fn nobody_there() {
        let listen = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let error = run(&Health { listen }).expect_err("nobody listens any more");
        assert!(error.to_string().contains("does not answer"), "{error}");
    }
}
