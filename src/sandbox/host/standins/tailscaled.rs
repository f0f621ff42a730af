//! `tailscaled`: holds the socket that `tailscale` looks for, as long as its service runs.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::err;

/// The socket's usual place.
pub(super) const SOCKET: &str = "/run/tailscale/tailscaled.sock";

/// Runs the daemon until it is stopped.
pub(super) fn run(arguments: &[String]) -> i32 {
    let option = |name: &str| {
        arguments
            .iter()
            .find_map(|argument| argument.trim_start_matches('-').strip_prefix(name))
    };
    if arguments
        .iter()
        .any(|argument| argument == "--version" || argument == "-version")
    {
        super::out(super::tailscale::VERSION);
        return 0;
    }
    let socket = Path::new(option("socket=").unwrap_or(SOCKET)).to_owned();
    // Left over from a daemon that was killed.
    let _ = fs::remove_file(&socket);
    let listener = socket
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| UnixListener::bind(&socket));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            err(format!("safesocket.Listen: {}: {error}", socket.display()));
            return 1;
        }
    };
    err("logtail started");
    err(format!(
        "Program starting: v{}, Go 1.25.3",
        super::tailscale::VERSION
    ));
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        // A client only wants to know that somebody is here; it hangs up by itself.
        let _ = stream.read(&mut [0]);
    }
    0
}
