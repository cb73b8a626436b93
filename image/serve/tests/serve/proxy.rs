//! A proxy in front of ComfyUI that loses answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Passes everything on, but the answers to the first so many POST /prompt never arrive: the connection breaks.
pub async fn losing_answers(comfyui: &str, how_many: usize) -> String {
    let upstream = comfyui.strip_prefix("http://").expect("a URL").to_owned();
    let left = Arc::new(AtomicUsize::new(how_many));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (upstream, left) = (upstream.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                let server = TcpStream::connect(upstream).await.expect("connects");
                relay(client, server, &left).await;
            });
        }
    });
    url
}

async fn relay(client: TcpStream, server: TcpStream, left: &AtomicUsize) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
        let take = |left: usize| left.checked_sub(1);
        let loses = buffer[..read].starts_with(b"POST /prompt ")
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        if loses {
            // Nothing comes back from here on; ComfyUI gets the request all the same.
            back.abort();
        }
        if to_server.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        if loses {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            return;
        }
    }
    back.abort();
}
