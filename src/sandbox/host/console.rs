//! The host's serial console, as the cloud shows it.

use std::collections::VecDeque;
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// EC2 keeps the last 64 KiB of console output (`GetConsoleOutput` in the EC2 API reference).
const KEPT: usize = 64 * 1024;

/// What a host has written to its console. Clones share the text; it outlives the host.
#[derive(Clone, Default)]
pub struct Console(Arc<Mutex<VecDeque<u8>>>);

impl Console {
    /// The text so far as raw bytes, at most the last 64 KiB.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut kept = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // Reading from a VecDeque of bytes cannot fail.
        let _ = kept.read_to_end(&mut bytes);
        bytes
    }

    fn append(&self, new: &[u8]) {
        let new = &new[new.len().saturating_sub(KEPT)..];
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let excess = (kept.len() + new.len()).saturating_sub(KEPT);
        kept.drain(..excess);
        kept.extend(new);
    }

    /// Reads until every process of the host has closed its end.
    pub(super) async fn follow(self, mut pipe: Receiver) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
            self.append(&buffer[..length]);
        }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_64_kib() {
        let console = Console::default();
        console.append(b"first\n");
        assert_eq!(console.bytes(), b"first\n");
        console.append(&vec![b'a'; KEPT - 1]);
        assert_eq!(console.bytes().len(), KEPT);
        assert_eq!(console.bytes()[0], b'\n');
        console.append(&[vec![b'b'; KEPT], b"end".to_vec()].concat());
        let bytes = console.bytes();
        assert_eq!(bytes.len(), KEPT);
        assert!(bytes.ends_with(b"bbbend"));
    }
}
