//! Free ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

use rand::RngExt as _;

use crate::{Error, Result};

/// Below the ports that systems hand out to outgoing connections, so that none of those takes a server's port
/// while the server is down for a moment.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port of 127.0.0.1 that nobody listened on just now. Somebody may take it before it is used: try again then.
pub(crate) fn free_port() -> Result<u16> {
    let mut last = None;
    for _ in 0..100 {
        let port = rand::rng().random_range(RANGE);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = Some(error),
        }
    }
    Err(Error::io("find a free port on 127.0.0.1", last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into())))
}
