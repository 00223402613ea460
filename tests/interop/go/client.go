package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"attestry.test/interop/pb"
)

const (
	lineBytesMax = 1 << 20
	messagesMax  = 1_000_000
	// Without the probe of bandwidth, so that a whole slow stream does not fit into the window that it opens.
	narrowWindow = 1 << 20
)

// What the client is told of a call.
type spec struct {
	Path         string
	Shape        string
	Count        *int
	Request      map[string]any
	PayloadSizes []int `json:"payload_sizes"`
	AnswerSizes  []int `json:"answer_sizes"`
	Metadata     [][2]string
	DeadlineMs   int64 `json:"deadline_ms"`
	Gzip         bool
	PingPong     bool `json:"ping_pong"`
	DrainAt      int  `json:"drain_at"`
	HoldOpen     bool `json:"hold_open"`
	Cancel       bool
	CancelAfter  int  `json:"cancel_after"`
	AwaitCancel  bool `json:"await_cancelled"`
	Pause        bool
	Concurrent   int
	Soak         int
	NewChannel   bool `json:"new_channel"`
}

type client struct {
	target                 string
	plain, narrow, control *grpc.ClientConn
}

func converse(target, controlTarget string) {
	c := &client{target: target, plain: dial(target), control: dial(controlTarget)}
	c.narrow = dial(target, grpc.WithStaticStreamWindowSize(narrowWindow), grpc.WithStaticConnWindowSize(narrowWindow))
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		var s spec
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			panic(err)
		}
		fmt.Println(string(must(json.Marshal(c.run(&s)))))
	}
}

func dial(target string, more ...grpc.DialOption) *grpc.ClientConn {
	sizes := grpc.WithDefaultCallOptions(
		grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax))
	options := []grpc.DialOption{grpc.WithTransportCredentials(transport()), grpc.WithAuthority(authority), grpc.WithDisableRetry(), sizes}
	return must(grpc.NewClient("passthrough:///"+target, append(options, more...)...))
}

func (c *client) ask(method string, question, answer any) {
	if err := c.control.Invoke(context.Background(), "/"+control+"/"+method, question, answer); err != nil {
		panic(err)
	}
}

func (c *client) await(s *spec, state pb.AwaitRequest_State) bool {
	answer := &pb.AwaitResponse{}
	c.ask("Await", &pb.AwaitRequest{Call: s.Request["call"].(string), State: state}, answer)
	return answer.Reached
}

func (c *client) run(s *spec) map[string]any {
	switch {
	case s.Concurrent > 0:
		return c.runConcurrent(s)
	case s.Soak > 0:
		return c.runSoak(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan map[string]any)
	go func() { ended <- c.call(ctx, cancel, c.plain, s) }()
	if s.Cancel {
		c.await(s, pb.AwaitRequest_STARTED)
		if s.CancelAfter == 0 {
			cancel()
		}
	}
	result := <-ended
	if s.AwaitCancel {
		result["server_heard"] = c.await(s, pb.AwaitRequest_CANCELLED)
	}
	return result
}

// All calls at once; each has its seed.
func (c *client) runConcurrent(s *spec) map[string]any {
	ended := make([]chan map[string]any, s.Concurrent)
	for seed := range ended {
		ended[seed] = make(chan map[string]any, 1)
		go func() { ended[seed] <- c.callSeeded(c.plain, s, seed) }()
	}
	return summed(len(ended), func(seed int) map[string]any { return <-ended[seed] })
}

// One call after another, each with its seed, and a connection of its own if the case says so.
func (c *client) runSoak(s *spec) map[string]any {
	return summed(s.Soak, func(seed int) map[string]any {
		if !s.NewChannel {
			return c.callSeeded(c.plain, s, seed)
		}
		channel := dial(c.target)
		defer channel.Close()
		return c.callSeeded(channel, s, seed)
	})
}

func (c *client) callSeeded(channel *grpc.ClientConn, s *spec, seed int) map[string]any {
	one := *s
	one.Request = map[string]any{}
	for name, value := range s.Request {
		one.Request[name] = value
	}
	one.Request["seed"] = seed
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return c.call(ctx, cancel, channel, &one)
}

func summed(calls int, result func(int) map[string]any) map[string]any {
	codes, all := map[string]int{}, sha256.New()
	for index := range calls {
		one := result(index)
		codes[strconv.Itoa(one["code"].(int))]++
		io.WriteString(all, one["sha256"].(string))
	}
	return map[string]any{"codes": codes, "sha256": hex.EncodeToString(all.Sum(nil))}
}

// What came so far.
type tally struct {
	header, trailer metadata.MD
	messages, bytes int
	sha256          hash.Hash
	last            *pb.Response
}

// Makes one call from its beginning to its status.
func (c *client) call(ctx context.Context, cancel context.CancelFunc, channel *grpc.ClientConn, s *spec) map[string]any {
	if s.DeadlineMs > 0 {
		var release context.CancelFunc
		ctx, release = context.WithTimeout(ctx, time.Duration(s.DeadlineMs)*time.Millisecond)
		defer release()
	}
	for _, field := range s.Metadata {
		value := field[1]
		if strings.HasSuffix(field[0], "-bin") {
			value = string(must(hex.DecodeString(value)))
		}
		ctx = metadata.AppendToOutgoingContext(ctx, field[0], value)
	}
	t := &tally{sha256: sha256.New()}
	options := []grpc.CallOption{grpc.Header(&t.header), grpc.Trailer(&t.trailer)}
	if s.Gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	result := map[string]any{}
	var err error
	if s.Shape == "unary" {
		answer := &pb.Response{}
		if err = channel.Invoke(ctx, s.Path, requestOf(s, 0), answer, options...); err == nil {
			t.add(answer)
		}
	} else {
		err = c.stream(ctx, cancel, channel, s, t, result, options)
	}
	return t.into(result, status.Convert(err))
}

func (c *client) stream(
	ctx context.Context, cancel context.CancelFunc, channel *grpc.ClientConn, s *spec, t *tally,
	result map[string]any, options []grpc.CallOption,
) error {
	desc := &grpc.StreamDesc{ClientStreams: s.Shape != "server_stream", ServerStreams: s.Shape != "client_stream"}
	if s.Pause {
		channel = c.narrow
	}
	stream, err := channel.NewStream(ctx, desc, s.Path, options...)
	if err != nil {
		return err
	}
	answers := make(chan struct{}, messagesMax)
	go c.send(stream, s, answers)
	if s.Pause {
		result["stalled"] = c.await(s, pb.AwaitRequest_STALLED)
	}
	for {
		answer := &pb.Response{}
		if err := stream.RecvMsg(answer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		t.add(answer)
		answers <- struct{}{}
		if t.messages == s.CancelAfter {
			cancel()
		}
		if !desc.ServerStreams {
			return nil
		}
	}
}

// The stream of requests: at once, or each after the answers to the one before (ping-pong).
func (c *client) send(stream grpc.ClientStream, s *spec, answers <-chan struct{}) {
	count := messagesMax
	if s.Shape == "server_stream" {
		count = 1
	} else if s.Count != nil {
		count = *s.Count
	}
	for index := range count {
		if index > 0 && s.PingPong && !taken(stream.Context(), answers, number(s.Request["response_count"])) {
			return
		}
		if index > 0 && index == s.DrainAt {
			c.ask("Drain", &pb.DrainRequest{}, &pb.DrainResponse{})
		}
		// The call's end, which shows here as io.EOF, is what the receiving side reports.
		if stream.SendMsg(requestOf(s, index)) != nil {
			return
		}
	}
	if !s.HoldOpen {
		stream.CloseSend()
	}
}

func taken(ctx context.Context, answers <-chan struct{}, count int) bool {
	for range count {
		select {
		case <-answers:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func number(value any) int {
	float, _ := value.(float64)
	if whole, isWhole := value.(int); isWhole {
		return whole
	}
	return int(float)
}

func requestOf(s *spec, index int) *pb.Request {
	fields := map[string]any{}
	for name, value := range s.Request {
		fields[name] = value
	}
	size := number(fields["payload_size"])
	if index < len(s.PayloadSizes) {
		size = s.PayloadSizes[index]
	}
	if index < len(s.AnswerSizes) {
		fields["response_size"] = s.AnswerSizes[index]
	}
	details, _ := fields["status_details"].(string)
	delete(fields, "payload_size")
	delete(fields, "status_details")
	request := &pb.Request{}
	if err := protojson.Unmarshal(must(json.Marshal(fields)), request); err != nil {
		panic(err)
	}
	request.Payload = payloadOf(int(request.Seed), index, size)
	request.StatusDetails = must(hex.DecodeString(details))
	request.AfterDrain = s.DrainAt > 0 && index >= s.DrainAt
	return request
}

func (t *tally) add(answer *pb.Response) {
	t.messages++
	t.bytes += len(answer.Payload)
	t.sha256.Write(answer.Payload)
	t.last = answer
}

func (t *tally) into(result map[string]any, ended *status.Status) map[string]any {
	details := ""
	if values := t.trailer.Get(detailsName); len(values) > 0 {
		details = hex.EncodeToString([]byte(values[0]))
	}
	result["code"] = int(ended.Code())
	result["message"] = ended.Message()
	result["details"] = details
	result["initial"] = shown(t.header)
	result["trailing"] = shown(t.trailer)
	result["messages"] = t.messages
	result["bytes"] = t.bytes
	result["sha256"] = hex.EncodeToString(t.sha256.Sum(nil))
	result["last"] = report(t.last)
	return result
}

func shown(md metadata.MD) [][2]string {
	fields := fieldsOf(md)
	for i, field := range fields {
		fields[i][1] = printable(field[0], field[1])
	}
	return fields
}

func report(answer *pb.Response) any {
	if answer == nil || answer.ReceivedSha256 == "" {
		return nil
	}
	seen := [][2]string{}
	for _, field := range answer.Seen {
		seen = append(seen, [2]string{field.Name, printable(field.Name, string(field.Value))})
	}
	return map[string]any{
		"messages": answer.ReceivedMessages,
		"bytes":    answer.ReceivedBytes,
		"sha256":   answer.ReceivedSha256,
		"seen":     seen,
	}
}
