//! A connection, in clear text or under TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Read-ahead below TLS, in bytes: many records a system call.
pub(crate) const TLS_READ_AHEAD: usize = 128 * 1024;

/// A connection made by a [`Dialer`](crate::Dialer).
///
/// Reads and writes go straight to the socket or the TLS session, without a box or a lock between. Under TLS an end
/// of the stream that the peer did not announce (`close_notify`) is an error of kind
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), never an end: the stream may have been cut.
///
/// A connector on the unbuffered interface of rustls (which decrypts in place and saves a copy) would be a third
/// variant of the inner enum; nothing outside this file would change.
pub struct Connection {
    io: Io,
    peer: SocketAddr,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

impl Connection {
    pub(crate) fn plain(stream: TcpStream, peer: SocketAddr) -> Self {
        Self { io: Io::Plain(stream), peer }
    }

    pub(crate) fn tls(stream: TlsStream<BufReader<TcpStream>>, peer: SocketAddr) -> Self {
        Self { io: Io::Tls(Box::new(stream)), peer }
    }

    /// The address that was connected to.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        matches!(self.io, Io::Tls(_))
    }

    /// The protocol that was agreed on by ALPN (RFC 7301), if one was.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.io {
            Io::Plain(_) => None,
            Io::Tls(t) => t.get_ref().1.alpn_protocol(),
        }
    }

    /// The socket, when nothing is between it and the caller.
    ///
    /// # Errors
    /// The connection itself, under TLS.
    pub fn into_tcp(self) -> Result<TcpStream, Self> {
        match self.io {
            Io::Plain(s) => Ok(s),
            io @ Io::Tls(_) => Err(Self { io, peer: self.peer }),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("tls", &self.is_tls())
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Io::Tls(t) => Pin::new(t).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Io::Tls(t) => Pin::new(t).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Io::Tls(t) => Pin::new(t).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(s) => s.is_write_vectored(),
            Io::Tls(t) => t.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(s) => Pin::new(s).poll_flush(cx),
            Io::Tls(t) => Pin::new(t).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Io::Tls(t) => Pin::new(t).poll_shutdown(cx),
        }
    }
}
