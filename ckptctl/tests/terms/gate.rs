// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Something between a node and etcd that does to one request what a network can do to it.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread;

use super::etcd::LONG;

/// What happens to the first request that has a text in it.
pub enum Fate {
    /// It waits, and all that comes behind it: this is told when it has come, and it goes on when
    /// the other end is told.
    Held(Sender<()>, Receiver<()>),
    /// It is carried out, and nobody hears of it.
    AnswerLost,
}

struct Watched {
    text: &'static str,
    fate: Option<Fate>,
}

/// Begins to let connections through to an address, and returns the address for that.
pub fn before(etcd: &str, text: &'static str, fate: Fate) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let etcd = etcd.strip_prefix("http://").unwrap().to_owned();
    let watched = Arc::new(Mutex::new(Watched {
        text,
        fate: Some(fate),
    }));
    // Ends with the process: nobody waits for it.
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&etcd) else {
                continue;
            };
            let watched = Arc::clone(&watched);
            thread::spawn(move || {
                let _ = let_through(client, server, &watched);
            });
        }
    });
    address
}

fn let_through(
    mut client: TcpStream,
    mut server: TcpStream,
    watched: &Mutex<Watched>,
) -> io::Result<()> {
    let (mut answers, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let lose_answers = Arc::new(Mutex::new(false));
    let lost = Arc::clone(&lose_answers);
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = answers.read(&mut bytes) {
            if *lost.lock().unwrap() || to_client.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    // All that was sent: a request comes in pieces.
    let mut sent = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let count = match client.read(&mut bytes) {
            Ok(count @ 1..) => count,
            _ => return server.shutdown(Shutdown::Both),
        };
        sent.extend_from_slice(&bytes[..count]);
        // Locked for as long as a request is held, so that all others are.
        let mut watched = watched.lock().unwrap();
        match watched.fate_of(&sent) {
            Some(Fate::Held(has_come, go_on)) => {
                let _ = has_come.send(());
                let _ = go_on.recv_timeout(LONG);
            }
            Some(Fate::AnswerLost) => *lose_answers.lock().unwrap() = true,
            None => {}
        }
        drop(watched);
        server.write_all(&bytes[..count])?;
    }
}

impl Watched {
    fn fate_of(&mut self, sent: &[u8]) -> Option<Fate> {
        let text = self.text.as_bytes();
        let is_in = sent.windows(text.len()).any(|window| window == text);
        self.fate.take_if(|_| is_in)
    }
}

/// A fate of being held, what tells that a request is, and what lets it go on.
pub fn held() -> (Fate, Receiver<()>, Sender<()>) {
    let (has_come, come) = mpsc::channel();
    let (go, go_on) = mpsc::channel();
    (Fate::Held(has_come, go_on), come, go)
}
