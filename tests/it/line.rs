//! A line between the program and the sandbox, which can be held, cut, mended, and made to damage what it carries.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::probe::wait_for;
use crate::support::Sandbox;

/// Bytes that go on at a time.
const CHUNK: usize = 64 << 10;

/// How often a connection without traffic looks whether the line was cut.
const LOOK: Duration = Duration::from_millis(10);

/// The line. Clients connect to its URL.
pub struct Line {
    pub url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    /// Bytes to the server so far.
    sent: AtomicU64,
    /// At so many, nothing goes on.
    hold_at: AtomicU64,
    /// Chunks of a body to damage.
    damage: AtomicU32,
    end: AtomicBool,
}

impl Line {
    /// One that holds everything once so many bytes went to the server.
    pub fn holding_after(sandbox: &Sandbox, bytes: u64) -> Self {
        let server = sandbox.url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { hold_at: AtomicU64::new(bytes), ..State::default() });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.end.load(Ordering::SeqCst) {
                    return;
                }
                if shared.cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server) else { return };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(LOOK)).unwrap();
                }
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (shared.clone(), shared.clone());
                std::thread::spawn(move || relay(client, server, &up, true));
                std::thread::spawn(move || relay(ends.1, ends.0, &down, false));
            }
        });
        Line { url, state }
    }

    /// Bytes that went to the server.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// Waits until the line holds.
    pub fn until_held(&self) {
        wait_for("the line to hold", || (self.sent() >= self.state.hold_at.load(Ordering::SeqCst)).then_some(()));
    }

    /// Holds nothing any more.
    pub fn release(&self) {
        self.state.hold_at.store(u64::MAX, Ordering::SeqCst);
    }

    /// Ends every connection, and every new one at once.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        // Until the last of them noticed.
        std::thread::sleep(LOOK * 5);
    }

    /// Carries new connections again, and holds nothing.
    pub fn mend(&self) {
        self.release();
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Changes one bit in each of the next so many chunks of a body.
    pub fn damage(&self, chunks: u32) {
        self.state.damage.store(chunks, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.state.end.store(true, Ordering::SeqCst);
        self.state.cut.store(true, Ordering::SeqCst);
        // Wakes the listener, which then goes.
        let _ = TcpStream::connect(self.url.strip_prefix("http://").unwrap_or_default());
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, state: &State, up: bool) {
    let mut chunk = vec![0; CHUNK];
    loop {
        if state.cut.load(Ordering::SeqCst) {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        if state.sent.load(Ordering::SeqCst) >= state.hold_at.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
            continue;
        }
        let n = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        if up {
            state.sent.fetch_add(n as u64, Ordering::SeqCst);
            // Heads are short: the end of a full chunk is inside a body.
            let due = |left: u32| left.checked_sub(1).filter(|_| n == CHUNK);
            if state.damage.fetch_update(Ordering::SeqCst, Ordering::SeqCst, due).is_ok() {
                chunk[n - 1] ^= 1;
            }
        }
        if to.write_all(&chunk[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
    let _ = to.shutdown(Shutdown::Write);
}
