//! Requests that this reader and hyper's server both take for whole are the same requests: what one of them might smuggle past the other does not exist.
//!
//! Either may refuse what the other reads; after the first refusal nothing is compared.

use super::{C, Conversation, HEAD_BYTES_MAX, Part};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Method, target and body of one whole request.
type Whole = (String, String, Vec<u8>);

fn read_here(bytes: &[u8]) -> Vec<Whole> {
    let (mut conversation, mut parts) = (Conversation::new(HEAD_BYTES_MAX), Vec::new());
    conversation.read(C, bytes, &mut parts);
    let (mut whole, mut open) = (Vec::new(), None);
    for part in parts {
        match part {
            Part::Request { head, ends, .. } => {
                let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                open = Some((text(&head.method), text(&head.target), Vec::new()));
                whole.extend(open.take_if(|_| ends));
            }
            Part::Data { range, ends, .. } => {
                open.as_mut().unwrap().2.extend_from_slice(&bytes[range]);
                whole.extend(open.take_if(|_| ends));
            }
            Part::Extension { .. } => {}
            Part::End { .. } => whole.extend(open.take()),
            _ => break,
        }
    }
    whole
}

async fn read_by_hyper(bytes: &[u8]) -> Vec<Whole> {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            seen.borrow_mut().push((head.method.to_string(), head.uri.to_string(), body));
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let served = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(far), service);
    let asked = async {
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        near.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let _ = tokio::join!(served, asked);
    seen.take()
}

fn both(bytes: &[u8]) -> (Vec<Whole>, Vec<Whole>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    (read_here(bytes), runtime.block_on(read_by_hyper(bytes)))
}

#[test]
fn both_read_what_is_plain() {
    let requests = concat!(
        "POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        "\r\nPUT /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nde\r\n1\r\nf\r\n0\r\nT: v\r\n\r\n",
        "GET /3 HTTP/1.1\nhost: x\n\n",
    );
    let (here, by_hyper) = both(requests.as_bytes());
    assert_eq!(here, by_hyper);
    assert_eq!(here.iter().map(|whole| whole.2.len()).collect::<Vec<_>>(), [3, 3, 0]);
}

fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "Host: x\r\n",
        "Content-Length: 5\r\n",
        "content-length: 5\n",
        "Content-Length: 05\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: +5\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\r\n folded\r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:\tCHUNKED \r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
    ])
}

fn body() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "hello",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\nT: v\r\n\r\n",
        "5 ;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "05\r\nhello\r\n000\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "0\r\n\r\n",
    ])
}

proptest! {
    #[test]
    fn what_both_read_is_the_same(
        requests in prop::collection::vec((prop::sample::select(vec!["GET", "POST"]), 0..2, prop::collection::vec(field(), 0..4), body()), 1..5),
    ) {
        let mut bytes = String::new();
        for (number, (method, minor, fields, body)) in requests.iter().enumerate() {
            let _ = write!(bytes, "{method} /{number} HTTP/1.{}\r\n{}\r\n{body}", 1 - minor, fields.concat());
        }
        let (here, by_hyper) = both(bytes.as_bytes());
        for (here, by_hyper) in here.iter().zip(&by_hyper) {
            prop_assert_eq!(here, by_hyper, "{:?}", bytes);
        }
    }
}
