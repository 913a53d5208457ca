//! Turns a connection into a replication connection.
//!
//! `CREATE_REPLICATION_SLOT … EXPORT_SNAPSHOT`, the only way to a snapshot that fits a slot exactly, needs
//! `replication=database` in the start-up packet, and the client library offers no way to put it there. So the
//! first packet that the library writes is extended on its way out.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose first packet, the start-up packet, asks for a replication connection.
pub(crate) struct ReplicationStartup<S> {
    inner: S,
    state: StartupState,
}

enum StartupState {
    /// Nothing was written yet.
    Waiting,
    /// The extended packet is on its way; `answer` is what the writer is told when it is out.
    Sending { packet: Vec<u8>, sent: usize, answer: usize },
    /// All bytes pass as they are.
    Done,
}

impl<S> ReplicationStartup<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, state: StartupState::Waiting }
    }
}

/// The packet with `replication=database` added: length, version, then name and value pairs, ended by a zero byte.
fn extend(packet: &[u8]) -> io::Result<Vec<u8>> {
    const PARAMETER: &[u8] = b"replication\0database\0";
    let complete = packet.len() > 8
        && packet.last() == Some(&0)
        && u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]) as usize == packet.len();
    if !complete {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the start-up packet was not written in one piece"));
    }
    let length = packet.len() + PARAMETER.len();
    let mut extended = Vec::with_capacity(length);
    extended.extend_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_be_bytes());
    extended.extend_from_slice(&packet[4..packet.len() - 1]);
    extended.extend_from_slice(PARAMETER);
    extended.push(0);
    Ok(extended)
}

impl<S: AsyncRead + Unpin> AsyncRead for ReplicationStartup<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReplicationStartup<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                StartupState::Waiting => {
                    this.state = StartupState::Sending { packet: extend(buf)?, sent: 0, answer: buf.len() };
                }
                StartupState::Sending { packet, sent, answer } => {
                    *sent += ready!(Pin::new(&mut this.inner).poll_write(cx, &packet[*sent..]))?;
                    if *sent == packet.len() {
                        let answer = *answer;
                        this.state = StartupState::Done;
                        return Poll::Ready(Ok(answer));
                    }
                }
                StartupState::Done => return Pin::new(&mut this.inner).poll_write(cx, buf),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_added_and_the_length_fits() {
        let packet = b"\0\0\0\x11\0\x03\0\0user\0me\0\0";
        let extended = extend(packet).unwrap();
        assert_eq!(extended.len(), packet.len() + 21);
        assert_eq!(u32::from_be_bytes(extended[..4].try_into().unwrap()) as usize, extended.len());
        assert!(extended.ends_with(b"user\0me\0replication\0database\0\0"));
        assert!(extend(&packet[..10]).is_err());
    }
}
