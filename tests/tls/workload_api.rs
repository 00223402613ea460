//! A server of the SPIFFE Workload API (X.509 profile), written by hand after the standard's proto: what the sidecars under test are given.

use super::authority::{Authority, Issued, der_of_certificate, der_of_key};
use super::service;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};

#[derive(Clone, PartialEq, prost::Message)]
struct X509SvidRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[allow(clippy::struct_field_names, reason = "the names of the standard's proto")]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// An agent with one workload.
pub(super) struct Agent {
    pub(super) socket: PathBuf,
    /// `None`: the workload is not registered.
    answer: watch::Sender<Option<X509SvidResponse>>,
}

impl Agent {
    pub(super) fn start(socket: &Path) -> Self {
        let (answer, answers) = watch::channel(None);
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            service::run(async move {
                let connections = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
                let api = Api { answers };
                tonic::transport::Server::builder()
                    .add_service(api)
                    .serve_with_incoming(connections)
                    .await
                    .unwrap();
            });
        });
        Self { socket: socket.to_owned(), answer }
    }

    /// From now on the workload gets this.
    pub(super) fn answer(&self, answer: X509SvidResponse) {
        self.answer.send_replace(Some(answer));
    }
}

/// One SVID, the authorities of its trust domain, and those of others.
pub(super) fn svid(
    id: &str,
    issued: &Issued,
    own: &Authority,
    federated: &[(&str, &Authority)],
) -> X509SvidResponse {
    let svid = X509Svid {
        spiffe_id: id.to_owned(),
        x509_svid: der_of_certificate(&issued.certificate),
        x509_svid_key: der_of_key(&issued.key),
        bundle: der_of_certificate(&own.certificate),
    };
    let bundles = federated
        .iter()
        .map(|(domain, authority)| ((*domain).to_owned(), der_of_certificate(&authority.certificate)));
    X509SvidResponse { svids: vec![svid], federated_bundles: bundles.collect() }
}

/// An answer whose key belongs to another certificate.
pub(super) fn with_key_of(mut answer: X509SvidResponse, other: &Issued) -> X509SvidResponse {
    answer.svids[0].x509_svid_key = der_of_key(&other.key);
    answer
}

#[derive(Clone)]
struct Api {
    answers: watch::Receiver<Option<X509SvidResponse>>,
}

impl NamedService for Api {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl tower::Service<http::Request<Body>> for Api {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
                return Ok(Status::unimplemented("only FetchX509SVID").into_http());
            }
            Ok(Grpc::new(tonic_prost::ProstCodec::default()).server_streaming(api, request).await)
        })
    }
}

impl ServerStreamingService<X509SvidRequest> for Api {
    type Response = X509SvidResponse;
    type ResponseStream = BoxStream<'static, Result<X509SvidResponse, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        // The Workload API endpoint specification, section 3: what keeps other sites' requests out.
        if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
            return std::future::ready(Err(Status::invalid_argument("security header missing from request")));
        }
        if self.answers.borrow().is_none() {
            return std::future::ready(Err(Status::permission_denied("no identity issued")));
        }
        let answers = self.answers.clone();
        let each = stream::unfold((answers, true), |(mut answers, is_first)| async move {
            if !is_first {
                answers.changed().await.ok()?;
            }
            let answer = answers.borrow_and_update().clone();
            Some((answer.ok_or_else(|| Status::permission_denied("no identity issued")), (answers, false)))
        });
        std::future::ready(Ok(Response::new(each.boxed())))
    }
}
