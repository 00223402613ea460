//! How the peers are configured: one worker each, kept upstream connections, many streams, wide windows, and no log that is not the subject.
//!
//! The settings that matter are the same for all: at most 1,000 streams of a connection, a window of 1 MiB for each stream and of 1 GiB for a connection.

use super::peer::Peer;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

const STREAMS_MAX: u32 = 1000;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// Of what is only there so that a default does not cut a run short.
const TIMEOUT_S: u32 = 600;
/// For 1,000 connections on each side, and more.
const CONNECTIONS_MAX: u32 = 8192;
/// Bytes of each body that the tap keeps.
const TAPPED_BYTES_MAX: u32 = 1024;

/// A listening address and the backend behind it.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) listen: SocketAddr,
    pub(super) backend: SocketAddr,
}

/// nghttpx takes everything as arguments.
pub(super) fn nghttpx(route: Route) -> Vec<String> {
    let Route { listen, backend } = route;
    // One process, so that its id is that of the process which does the work.
    let fixed = ["--single-process", "--workers=1", "--conf=/dev/null", "--accesslog-file=/dev/null"];
    let set = [
        format!("--frontend=127.0.0.1,{};no-tls", listen.port()),
        format!("--backend=127.0.0.1,{};;proto=h2", backend.port()),
        format!("--frontend-http2-max-concurrent-streams={STREAMS_MAX}"),
        format!("--backend-http2-max-concurrent-streams={STREAMS_MAX}"),
        format!("--frontend-http2-window-size={STREAM_WINDOW_BYTES}"),
        format!("--frontend-http2-connection-window-size={CONNECTION_WINDOW_BYTES}"),
        format!("--backend-http2-window-size={STREAM_WINDOW_BYTES}"),
        format!("--backend-http2-connection-window-size={CONNECTION_WINDOW_BYTES}"),
    ];
    fixed.into_iter().map(str::to_owned).chain(set).collect()
}

/// HAProxy: its buffers hold a message of 16 KiB whole, without which it is three times as dear there. Reuse of connections is left at its default: with `http-reuse always`,
/// 2.6 now and then ends an upstream connection that carries several large answers, with INTERNAL_ERROR.
pub(super) fn haproxy(route: Route) -> String {
    let Route { listen, backend } = route;
    format!(
        "global\n nbthread 1\n maxconn {CONNECTIONS_MAX}\n tune.bufsize 65536\n\
         \x20tune.h2.max-concurrent-streams {STREAMS_MAX}\n tune.h2.initial-window-size {STREAM_WINDOW_BYTES}\n\
         defaults\n mode http\n timeout connect {TIMEOUT_S}s\n timeout client {TIMEOUT_S}s\n timeout server {TIMEOUT_S}s\n\
         frontend calls\n bind {listen} proto h2\n default_backend echo\n\
         backend echo\n server echo {backend} proto h2\n"
    )
}

/// nginx: one process that does the work itself; its temporary files stay in `folder`.
pub(super) fn nginx(route: Route, folder: &Path) -> String {
    let Route { listen, backend } = route;
    let folder = folder.display();
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places: String = places.map(|kind| format!("{kind}_temp_path {folder}/nginx-{kind};\n")).concat();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\nworker_rlimit_nofile {files};\n\
         pid {folder}/nginx.pid;\nerror_log stderr error;\nevents {{ worker_connections {CONNECTIONS_MAX}; }}\n\
         http {{\n{places}access_log off;\nclient_max_body_size 0;\n\
         http2_max_concurrent_streams {STREAMS_MAX};\nhttp2_body_preread_size 1m;\n\
         keepalive_requests 1000000000;\nkeepalive_timeout {TIMEOUT_S}s;\n\
         upstream echo {{ server {backend}; keepalive 2048; keepalive_requests 1000000000; }}\n\
         server {{ listen {listen} http2;\nlocation / {{ grpc_pass grpc://echo; grpc_socket_keepalive on;\n\
         grpc_buffer_size 64k; grpc_read_timeout {TIMEOUT_S}s; grpc_send_timeout {TIMEOUT_S}s; }}\n}}\n}}\n",
        files = 2 * CONNECTIONS_MAX
    )
}

/// Envoy, as its bootstrap in JSON; what it logs or taps goes into `folder`.
pub(super) fn envoy(peer: Peer, route: Route, folder: &Path) -> Value {
    let protocol = json!({
        "max_concurrent_streams": STREAMS_MAX,
        "initial_stream_window_size": STREAM_WINDOW_BYTES,
        "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
    });
    let address = |of: SocketAddr| json!({"socket_address": {"address": of.ip(), "port_value": of.port()}});
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let upstream =
        json!({"@type": type_url(options), "explicit_http_config": {"http2_protocol_options": protocol}});
    let endpoint = json!({"endpoint": {"address": address(route.backend)}});
    json!({"static_resources": {
        "listeners": [{
            "name": "calls",
            "address": address(route.listen),
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": envoy_connections(peer, &protocol, folder),
            }]}],
        }],
        "clusters": [{
            "name": "echo",
            "type": "STATIC",
            "circuit_breakers": {"thresholds": [{
                "max_connections": CONNECTIONS_MAX, "max_requests": 100_000, "max_pending_requests": 100_000,
            }]},
            "load_assignment": {"cluster_name": "echo", "endpoints": [{"lb_endpoints": [endpoint]}]},
            "typed_extension_protocol_options": {options: upstream},
        }],
    }})
}

fn envoy_connections(peer: Peer, protocol: &Value, folder: &Path) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": type_url("envoy.extensions.filters.http.router.v3.Router")},
    });
    let filters = if peer == Peer::EnvoyTap { vec![envoy_tap(folder), router] } else { vec![router] };
    let log = json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": type_url("envoy.extensions.access_loggers.file.v3.FileAccessLog"),
            "path": folder.join("access.log"),
        },
    });
    let logs = if peer == Peer::EnvoyLog { vec![log] } else { Vec::new() };
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "echo", "timeout": "0s"}});
    json!({
        "@type": type_url("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "calls",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "http2_protocol_options": protocol,
        "route_config": {"virtual_hosts": [{"name": "echo", "domains": ["*"], "routes": [route]}]},
        "http_filters": filters,
        "access_log": logs,
    })
}

/// One file for each call, as its own encoding is quickest written.
fn envoy_tap(folder: &Path) -> Value {
    let sink = json!({
        "format": "PROTO_BINARY",
        "file_per_tap": {"path_prefix": folder.join("tap").join("call")},
    });
    let output = json!({
        "sinks": [sink],
        "max_buffered_rx_bytes": TAPPED_BYTES_MAX,
        "max_buffered_tx_bytes": TAPPED_BYTES_MAX,
    });
    json!({
        "name": "envoy.filters.http.tap",
        "typed_config": {
            "@type": type_url("envoy.extensions.filters.http.tap.v3.Tap"),
            "common_config": {"static_config": {"match": {"any_match": true}, "output_config": output}},
        },
    })
}

fn type_url(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}
