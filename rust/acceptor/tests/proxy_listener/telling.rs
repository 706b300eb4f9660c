//! How refused connections are reported: to the hook, and in events.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use proxyproto_acceptor::{Options, Outcome};
use tracing_subscriber::fmt::MakeWriter;

use crate::pair::{V1, listen, options, peer, soon, until};

#[tokio::test]
async fn the_hook_is_told_who_and_why() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let told = Arc::clone(&told);
        listen(options()).await.on_refused(move |refusal| told.lock().unwrap().push(refusal.clone()))
    };
    let stranger = peer(&listener, b"GET / HTTP/1.1\r\n\r\n").await;
    tokio::select! {
        accepted = listener.accept() => panic!("{accepted:?}"),
        () = until(&listener, |_| !told.lock().unwrap().is_empty()) => {}
    }
    let refusal = told.lock().unwrap()[0].clone();
    assert_eq!((refusal.outcome, refusal.count), (Outcome::MissingHeader, 1));
    assert_eq!(refusal.peer.to_string(), stranger.local_addr().unwrap().to_string());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn events_say_what_the_log_says() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_writer(log.clone()).without_time().with_ansi(false).finish();
    // For this thread only. The whole test runs on it.
    let _guard = tracing::subscriber::set_default(subscriber);
    let listener = listen(Options::default()).await;
    let _stranger = peer(&listener, b"GET / HTTP/1.1\r\n\r\n").await;
    let _good = peer(&listener, V1).await;
    let lines = || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    soon(listener.accept()).await.unwrap();
    tokio::select! {
        accepted = listener.accept() => panic!("{accepted:?}"),
        () = until(&listener, |_| lines().contains("missing-header")) => {}
    }
    let lines = lines();
    assert!(lines.contains("WARN proxyproto_acceptor: "), "{lines}");
    assert!(lines.contains("believes the PROXY header of every peer"), "{lines}");
    assert!(lines.contains("HTTP"), "{lines}");
}
