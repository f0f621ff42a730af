//! A small client of the instance metadata service (IMDSv2), for the parts that run inside a host.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const SERVICE: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)),
    80,
);
const LIMIT: Duration = Duration::from_secs(5);

/// An answer of the metadata service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, where the status is 200.
    pub fn text(self) -> Option<String> {
        (self.status == 200)
            .then(|| String::from_utf8(self.body).ok())
            .flatten()
    }
}

/// A session: the token that every question carries.
#[derive(Debug)]
pub(super) struct Imds(String);

impl Imds {
    /// Gets a token for six minutes. Any status but 200 is an error, as for cloud-init and the AWS CLI.
    pub fn connect() -> io::Result<Imds> {
        let answer = request(
            "PUT",
            "/latest/api/token",
            "X-aws-ec2-metadata-token-ttl-seconds: 360",
        )?;
        let status = answer.status;
        let token = answer.text().ok_or_else(|| {
            io::Error::other(format!(
                "the metadata service answers {status} to a token request"
            ))
        })?;
        // A token goes back in a header line, so what is not one line is not a token.
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(io::Error::other(
                "the metadata service sent no usable token",
            ));
        }
        Ok(Imds(token))
    }

    pub fn get(&self, path: &str) -> io::Result<Answer> {
        request(
            "GET",
            path,
            &format!("X-aws-ec2-metadata-token: {}", self.0),
        )
    }
}

fn request(method: &str, path: &str, header: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&SERVICE, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // HTTP/1.0: the answer ends with the connection and is never in chunks.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: 169.254.169.254\r\n{header}\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other("the metadata service does not speak HTTP"))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some(Answer {
        status,
        body: answer[end + 4..].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_and_body() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno").unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (404, b"no".as_slice())
        );
        assert_eq!(answer.text(), None);
        assert_eq!(parse(b"<html>"), None);
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n\r\n\xff").unwrap().text(), None);
    }
}
