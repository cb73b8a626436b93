//! The network of a container that has one of its own.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;

type Order = oneshot::Sender<io::Result<OwnedFd>>;

/// A network, and a thread that lives in it: a socket belongs for ever to the network in which it was made.
#[derive(Debug, Clone)]
pub struct Network(mpsc::Sender<Order>);

impl Network {
    /// The network of a process, which keeps it for as long as this value lives.
    pub fn of(pid: i32) -> io::Result<Self> {
        let network = File::open(format!("/proc/{pid}/ns/net"))?;
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            let entered = move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network));
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            for reply in received {
                let made = entered.and_then(|()| socket_with(AddressFamily::INET, SocketType::STREAM, flags, None));
                // Nobody waits any more: the request was given up.
                let _ = reply.send(made.map_err(io::Error::from));
            }
        });
        Ok(Network(orders))
    }

    /// A socket in it.
    pub(super) async fn socket(&self) -> io::Result<TcpSocket> {
        let ended = || io::Error::other("the thread in the container's network ended");
        let (reply, made) = oneshot::channel();
        self.0.send(reply).map_err(|_| ended())?;
        let socket = made.await.map_err(|_| ended())??;
        Ok(TcpSocket::from_std_stream(TcpStream::from(socket)))
    }
}
