// The Go peer of the interop tests, on grpc-go: `peer server`, or `peer client TARGET CONTROL`.
//
// The server prints `LISTENING <port>` and ends when its graceful shutdown is done or its standard input ends. The client
// reads one call as a line of JSON from standard input, makes it, and answers with its result as a line of JSON.
// `interop.proto` says what a request makes the server do; the other peers do the same in other words. Here stands what
// both parts share; they themselves are in server.go and client.go.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

const (
	service = "attestry.interop.v1.Interop"
	control = "attestry.interop.v1.Control"
	// The name that clients ask for, and that the server's certificate has.
	authority       = "interop.test"
	messageBytesMax = 1 << 30
	detailsName     = "grpc-status-details-bin"
)

func main() {
	if os.Args[1] == "server" {
		serve()
	} else {
		converse(os.Args[2], os.Args[3])
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// With INTEROP_TLS, a folder, both sides show ca.pem's certificate cert.pem and ask the other for one.
func transport() credentials.TransportCredentials {
	folder := os.Getenv("INTEROP_TLS")
	if folder == "" {
		return insecure.NewCredentials()
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(must(os.ReadFile(filepath.Join(folder, "ca.pem"))))
	own := must(tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")))
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{own},
		RootCAs:      authorities,
		ClientCAs:    authorities,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ServerName:   authority,
	})
}

// Byte i is (seed + index + i) mod 256.
func payloadOf(seed, index, size int) []byte {
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(seed + index + i)
	}
	return payload
}

// The fields by name, as Go keeps no order between names; the values of one name stand in theirs.
func fieldsOf(md metadata.MD) [][2]string {
	fields := [][2]string{}
	for name, values := range md {
		for _, value := range values {
			fields = append(fields, [2]string{name, value})
		}
	}
	slices.SortStableFunc(fields, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return fields
}

func printable(name, value string) string {
	if strings.HasSuffix(name, "-bin") {
		return hex.EncodeToString([]byte(value))
	}
	return value
}

// Opens once; may be waited for from anywhere.
type latch struct {
	once   sync.Once
	opened chan struct{}
}

func newLatch() *latch {
	return &latch{opened: make(chan struct{})}
}

func (l *latch) open() {
	l.once.Do(func() { close(l.opened) })
}

func (l *latch) isOpen() bool {
	select {
	case <-l.opened:
		return true
	default:
		return false
	}
}
