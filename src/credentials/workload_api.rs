//! Credentials of the SPIFFE Workload API: an SVID, its key, and the authorities of its own and of federated trust domains.
//!
//! Invariants: the first SVID of an answer is used, as the standard has it (Workload API section 5.2.1); an answer is taken as a whole or not at all. Waiting is
//! bounded at the start, and goes on for ever afterwards, since what is in use stays good until it expires. The API's revocation lists are not read: the client library does not hand them out.

use super::CredentialsError;
use super::material::{Material, Parts, Trust};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Wait for the first answer at a start: an agent that is started with the workload is there within seconds.
const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Pause before the API is asked again, doubled with each failure up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

pub(super) fn load(socket: &Path, alpn: &[Vec<u8>]) -> Result<Material, CredentialsError> {
    // A thread of its own: the caller may be inside a runtime, which must not be blocked by another.
    let context = thread::scope(|scope| scope.spawn(|| fetch(socket)).join());
    let context = context.unwrap_or_else(|_| Err(fault(socket, "the client library panicked")))?;
    material(&context, alpn)
}

fn fetch(socket: &Path) -> Result<X509Context, CredentialsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| fault(socket, &error.to_string()))?;
    runtime.block_on(async {
        let mut last = "no answer".to_owned();
        let answered = timeout(FIRST_ANSWER_WAIT, async {
            let mut pause = PAUSE_MIN;
            loop {
                match ask(socket).await {
                    Ok(context) => return context,
                    Err(error) => last = error.to_string(),
                }
                sleep(pause).await;
                pause = longer(pause);
            }
        });
        let answered = answered.await;
        answered.map_err(|_| fault(socket, &format!("{last}, for {} s", FIRST_ANSWER_WAIT.as_secs())))
    })
}

async fn ask(socket: &Path) -> Result<X509Context, WorkloadApiError> {
    WorkloadApiClient::connect_to(endpoint(socket)).await?.fetch_x509_context().await
}

/// The API's answers, one after the other, for ever.
pub(super) struct Answers {
    socket: PathBuf,
    stream: Option<BoxStream<'static, Result<X509Context, WorkloadApiError>>>,
    pause: Duration,
}

impl Answers {
    pub(super) fn of(socket: PathBuf) -> Self {
        Self { socket, stream: None, pause: PAUSE_MIN }
    }

    /// The next answer: the context, or why it is none. While the API says nothing, or is not there, this waits and asks again.
    pub(super) async fn next(&mut self) -> Result<X509Context, WorkloadApiError> {
        loop {
            let reason = match self.listen().await {
                Ok(Some(Ok(context))) => {
                    self.pause = PAUSE_MIN;
                    return Ok(context);
                }
                Ok(Some(Err(error))) if !is_silence(&error) => return Err(error),
                Ok(Some(Err(error))) | Err(error) => error.to_string(),
                Ok(None) => "it ended the stream".to_owned(),
            };
            let (socket, pause_ms) = (self.socket.display(), self.pause.as_millis());
            tracing::warn!(%socket, reason, pause_ms, "the SPIFFE Workload API will be asked again");
            self.stream = None;
            sleep(self.pause).await;
            self.pause = longer(self.pause);
        }
    }

    async fn listen(&mut self) -> Result<Option<Result<X509Context, WorkloadApiError>>, WorkloadApiError> {
        if self.stream.is_none() {
            let client = WorkloadApiClient::connect_to(endpoint(&self.socket)).await?;
            self.stream = Some(client.stream_x509_contexts().await?.boxed());
        }
        let Some(stream) = &mut self.stream else { return Ok(None) };
        Ok(stream.next().await)
    }
}

/// The API cannot be reached any more, or has nothing for this workload: not an answer that could be refused.
fn is_silence(error: &WorkloadApiError) -> bool {
    use WorkloadApiError::{NoIdentityIssued, PermissionDenied, Transport};
    matches!(error, Transport(_) | NoIdentityIssued | PermissionDenied(_))
}

pub(super) fn material(context: &X509Context, alpn: &[Vec<u8>]) -> Result<Material, CredentialsError> {
    let svid = context
        .default_svid()
        .ok_or_else(|| CredentialsError::Unfit("the Workload API has brought no SVID".to_owned()))?;
    let owned = |der: &[u8]| CertificateDer::from(der.to_vec());
    let chain = svid.cert_chain().iter().map(|certificate| owned(certificate.as_bytes())).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));
    let mut bundles = BTreeMap::new();
    for (domain, bundle) in context.bundle_set().iter() {
        let roots = bundle.authorities().iter().map(|root| owned(root.as_bytes())).collect();
        bundles.insert(domain.as_str().to_owned(), roots);
    }
    let trust = Trust::Spiffe { own: svid.spiffe_id().trust_domain_name().to_owned(), bundles };
    Material::check(Parts { identity: Some((chain, key)), trust, revocation: Vec::new() }, alpn)
}

fn endpoint(socket: &Path) -> String {
    let text = socket.display().to_string();
    if text.starts_with("unix:") { text } else { format!("unix:{text}") }
}

fn fault(socket: &Path, fault: &str) -> CredentialsError {
    CredentialsError::WorkloadApi { socket: socket.display().to_string(), fault: fault.to_owned() }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(PAUSE_MAX)
}
