//! Tests of handshakes and live sessions, against OpenSSL and against rustls by itself.
