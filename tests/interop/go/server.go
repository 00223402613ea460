package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"attestry.test/interop/pb"
)

const (
	awaitMax     = 10 * time.Second
	stallSample  = 50 * time.Millisecond
	stallSamples = 10
)

// What the side channel tells of one call.
type callState struct {
	started, cancelled *latch
	sent, total        atomic.Int64
}

type server struct {
	grpc     *grpc.Server
	draining *latch
	barrier  *latch
	lock     sync.Mutex
	waiting  uint32
	calls    map[string]*callState
}

func serve() {
	s := &server{draining: newLatch(), barrier: newLatch(), calls: map[string]*callState{}}
	s.grpc = grpc.NewServer(
		grpc.Creds(transport()), grpc.MaxRecvMsgSize(messageBytesMax), grpc.MaxSendMsgSize(messageBytesMax))
	stream := func(name string, client, server bool, body func(*exchange) error) grpc.StreamDesc {
		handler := func(_ any, wire grpc.ServerStream) error { return s.exchange(wire, body) }
		return grpc.StreamDesc{StreamName: name, Handler: handler, ClientStreams: client, ServerStreams: server}
	}
	s.grpc.RegisterService(&grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
		// grpc-go serves a unary method as a stream of one message each way when it is described so, metadata included.
		stream("Unary", false, false, s.unary),
		stream("ClientStream", true, false, s.clientStream),
		stream("ServerStream", false, true, s.serverStream),
		stream("Bidi", true, true, s.bidi),
	}}, s)
	s.grpc.RegisterService(&grpc.ServiceDesc{ServiceName: control, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		{MethodName: "Await", Handler: s.await},
		{MethodName: "Drain", Handler: s.drain},
	}}, s)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	fmt.Printf("LISTENING %d\n", listener.Addr().(*net.TCPAddr).Port)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	if err := s.grpc.Serve(listener); err != nil {
		panic(err)
	}
	// Serve returns as the shutdown begins; this returns as it ends.
	s.grpc.GracefulStop()
}

// One call, and what came in over it.
type exchange struct {
	wire     grpc.ServerStream
	state    *callState
	plan     *pb.Request
	metadata metadata.MD
	messages uint64
	bytes    uint64
	sha256   hash.Hash
}

func (s *server) exchange(wire grpc.ServerStream, body func(*exchange) error) error {
	md, _ := metadata.FromIncomingContext(wire.Context())
	e := &exchange{wire: wire, plan: &pb.Request{}, metadata: md, sha256: sha256.New()}
	if first, err := e.next(); err == nil {
		e.plan = first
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	e.state = s.call(e.plan.Call)
	var done atomic.Bool
	context.AfterFunc(wire.Context(), func() {
		if !done.Load() {
			e.state.cancelled.open()
		}
	})
	e.state.started.open()
	compressor := "identity"
	if e.plan.Gzip {
		compressor = "gzip"
	}
	if err := grpc.SetSendCompressor(wire.Context(), compressor); err != nil && e.plan.Gzip {
		return err
	}
	err := body(e)
	done.Store(wire.Context().Err() == nil)
	return err
}

func (s *server) unary(e *exchange) error {
	if e.plan.Barrier > 0 {
		s.passBarrier(e.plan.Barrier)
	}
	return e.answerOnce()
}

func (s *server) clientStream(e *exchange) error {
	for !e.enough() {
		if _, err := e.next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	return e.answerOnce()
}

func (s *server) serverStream(e *exchange) error {
	sizes := e.plan.ResponseSizes
	for len(sizes) < int(e.plan.ResponseCount) {
		sizes = append(sizes, e.plan.ResponseSize)
	}
	e.state.total.Store(int64(len(sizes)))
	e.echoInitial()
	for index, size := range sizes {
		answer := &pb.Response{Payload: payloadOf(int(e.plan.Seed), index, int(size))}
		if err := e.wire.SendMsg(answer); err != nil {
			return err
		}
		e.state.sent.Add(1)
	}
	return e.finish()
}

func (s *server) bidi(e *exchange) error {
	e.echoInitial()
	request, index := e.plan, 0
	for e.messages > 0 {
		if request.AfterDrain {
			<-s.draining.opened
		}
		for range request.ResponseCount {
			answer := &pb.Response{Payload: payloadOf(int(request.Seed), index, int(request.ResponseSize))}
			if err := e.wire.SendMsg(answer); err != nil {
				return err
			}
			index++
		}
		if e.enough() {
			break
		}
		var err error
		if request, err = e.next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	return e.finish()
}

func (s *server) call(name string) *callState {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.calls[name] == nil {
		s.calls[name] = &callState{started: newLatch(), cancelled: newLatch()}
	}
	return s.calls[name]
}

func (s *server) passBarrier(width uint32) {
	s.lock.Lock()
	s.waiting++
	if s.waiting >= width {
		s.barrier.open()
	}
	s.lock.Unlock()
	<-s.barrier.opened
}

func (e *exchange) next() (*pb.Request, error) {
	request := &pb.Request{}
	if err := e.wire.RecvMsg(request); err != nil {
		return nil, err
	}
	e.messages++
	e.bytes += uint64(len(request.Payload))
	e.sha256.Write(request.Payload)
	return request, nil
}

func (e *exchange) enough() bool {
	return e.plan.EndAfter > 0 && e.messages >= uint64(e.plan.EndAfter)
}

func (e *exchange) answerOnce() error {
	e.echoInitial()
	if err := e.finish(); err != nil {
		return err
	}
	answer := &pb.Response{Payload: payloadOf(int(e.plan.Seed), 0, int(e.plan.ResponseSize))}
	if e.plan.Report {
		answer.ReceivedMessages, answer.ReceivedBytes = e.messages, e.bytes
		answer.ReceivedSha256 = hex.EncodeToString(e.sha256.Sum(nil))
		for _, field := range fieldsOf(e.metadata) {
			answer.Seen = append(answer.Seen, &pb.Field{Name: field[0], Value: []byte(field[1])})
		}
		if _, isSet := e.wire.Context().Deadline(); isSet {
			answer.Seen = append(answer.Seen, &pb.Field{Name: "deadline", Value: []byte("set")})
		}
	}
	return e.wire.SendMsg(answer)
}

func (e *exchange) echoed() metadata.MD {
	echoed := metadata.MD{}
	for name, values := range e.metadata {
		if e.plan.EchoMetadata && strings.HasPrefix(name, "x-") {
			echoed[name] = values
		}
	}
	return echoed
}

func (e *exchange) echoInitial() {
	if e.plan.EchoMetadata {
		e.wire.SetHeader(e.echoed())
	}
}

// Sets the trailing metadata; an error is the call's end, which may never come.
func (e *exchange) finish() error {
	if e.plan.Hang {
		<-e.wire.Context().Done()
		return status.FromContextError(e.wire.Context().Err()).Err()
	}
	trailing := e.echoed()
	if len(e.plan.StatusDetails) > 0 {
		trailing[detailsName] = []string{string(e.plan.StatusDetails)}
	}
	e.wire.SetTrailer(trailing)
	// nil where the code is OK.
	return status.Error(codes.Code(e.plan.StatusCode), e.plan.StatusMessage)
}

func (s *server) await(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	request := &pb.AwaitRequest{}
	if err := decode(request); err != nil {
		return nil, err
	}
	call := s.call(request.Call)
	watched := call.started
	switch request.State {
	case pb.AwaitRequest_STALLED:
		return &pb.AwaitResponse{Reached: stalled(call)}, nil
	case pb.AwaitRequest_CANCELLED:
		watched = call.cancelled
	}
	select {
	case <-watched.opened:
	case <-time.After(awaitMax):
	case <-ctx.Done():
	}
	return &pb.AwaitResponse{Reached: watched.isOpen()}, nil
}

func stalled(call *callState) bool {
	still := 0
	for range int(awaitMax / stallSample) {
		before := call.sent.Load()
		time.Sleep(stallSample)
		if call.started.isOpen() && call.sent.Load() == before {
			still++
		} else {
			still = 0
		}
		if still == stallSamples {
			break
		}
	}
	return still == stallSamples && call.sent.Load() < call.total.Load()
}

func (s *server) drain(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	if err := decode(&pb.DrainRequest{}); err != nil {
		return nil, err
	}
	go s.grpc.GracefulStop()
	s.draining.open()
	return &pb.DrainResponse{}, nil
}
