//! An HTTP/2 client: prior knowledge over TCP, or over TLS.

use crate::http1::Stream;
use crate::reply::Reply;
use crate::wait::within;
use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// One connection; a clone shares it.
#[derive(Clone)]
pub struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    scheme: &'static str,
}

impl Http2 {
    /// Connects with prior knowledge (h2c).
    ///
    /// # Panics
    /// When the peer does not speak it.
    pub async fn connect(address: SocketAddr) -> Http2 {
        let stream = within("to connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Http2::over(Box::new(stream), "http").await
    }

    /// Speaks over a stream that is there already.
    ///
    /// # Panics
    /// When the peer does not speak HTTP/2.
    pub async fn over(stream: Box<dyn Stream>, scheme: &'static str) -> Http2 {
        let (sender, connection) =
            within("HTTP/2", handshake(TokioExecutor::new(), TokioIo::new(stream))).await.unwrap();
        tokio::spawn(connection);
        Http2 { sender, scheme }
    }

    /// GET, read to its end.
    ///
    /// # Panics
    /// When no response comes back.
    pub async fn get(&mut self, host: &str, path: &str) -> Reply {
        self.request("GET", host, path, &[], b"").await
    }

    /// A request, its response read to the end.
    ///
    /// # Panics
    /// When no response comes back.
    pub async fn request(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        self.try_request(method, host, path, fields, body)
            .await
            .unwrap_or_else(|error| panic!("{method} {host}{path}: {error:?}"))
    }

    /// A request, its response read to the end.
    ///
    /// # Errors
    /// When the stream or the connection is reset before a response.
    ///
    /// # Panics
    /// When the request is not one.
    pub async fn try_request(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, hyper::Error> {
        let mut request =
            Request::builder().method(method).uri(format!("{}://{host}{path}", self.scheme));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        within("a response", async {
            self.sender.ready().await?;
            let (parts, mut content) = self.sender.send_request(request).await?.into_parts();
            let mut body = BytesMut::new();
            let mut whole = true;
            while let Some(frame) = content.frame().await {
                match frame.map(hyper::body::Frame::into_data) {
                    Ok(Ok(data)) => body.extend_from_slice(&data),
                    Ok(Err(_)) => {}
                    Err(_) => {
                        whole = false;
                        break;
                    }
                }
            }
            let (status, headers) = (parts.status.as_u16(), parts.headers);
            Ok(Reply { status, headers, body: body.freeze(), whole })
        })
        .await
    }
}
