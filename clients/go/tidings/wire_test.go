package tidings_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tidings-dev/tidings/clients/go/tidings"
	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

// serve starts a server in this process and returns a client of it.
func serve(t *testing.T, server *grpc.Server, opts ...tidings.Option) *tidings.Client {
	t.Helper()
	return dial(t, "passthrough:///tidings.example", append(opts, tidings.WithInsecure(), through(listen(t, server)))...)
}

type dialer func(context.Context, string) (net.Conn, error)

// listen starts a server in this process and returns the way to it.
func listen(t *testing.T, server *grpc.Server) dialer {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
}

func through(way dialer) tidings.Option {
	return tidings.WithDialOptions(grpc.WithContextDialer(way))
}

func dial(t *testing.T, target string, opts ...tidings.Option) *tidings.Client {
	t.Helper()
	client, err := tidings.New(target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// connection is what a scripted service does on one stream: it sends messages, each after a time, and ends with err,
// or says no more.
type connection struct {
	messages []*tidingsv1.WatchEventResponse
	every    time.Duration
	err      error
	silent   bool
}

// script is an EventService that plays a connection for each stream, the last one for all that follow, and keeps the
// requests.
type script struct {
	tidingsv1.UnimplementedEventServiceServer
	connections []connection

	mu       sync.Mutex
	requests []*tidingsv1.WatchEventRequest
	ended    int // streams
}

func (s *script) WatchEvent(
	request *tidingsv1.WatchEventRequest, stream grpc.ServerStreamingServer[tidingsv1.WatchEventResponse],
) error {
	s.mu.Lock()
	now := s.connections[min(len(s.requests), len(s.connections)-1)]
	s.requests = append(s.requests, request)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended++
	}()
	for _, message := range now.messages {
		time.Sleep(now.every)
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	if now.silent {
		<-stream.Context().Done()
	}
	return now.err
}

// play serves a script.
func play(t *testing.T, s *script, opts ...tidings.Option) *tidings.Client {
	t.Helper()
	return serve(t, s.server(), opts...)
}

func (s *script) server() *grpc.Server {
	server := grpc.NewServer()
	tidingsv1.RegisterEventServiceServer(server, s)
	return server
}

// tokens are the resume tokens that the streams were opened with.
func (s *script) tokens() []string {
	tokens := []string{}
	for _, request := range s.requests {
		tokens = append(tokens, request.GetResumeToken())
	}
	return tokens
}

var created = timestamppb.New(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

const (
	initial = tidingsv1.ChangeKind_CHANGE_KIND_INITIAL
	updated = tidingsv1.ChangeKind_CHANGE_KIND_UPDATED
	expired = tidingsv1.ChangeKind_CHANGE_KIND_EXPIRED
)

func change(token string, kind tidingsv1.ChangeKind, id string, revision int64) *tidingsv1.WatchEventResponse {
	event := &tidingsv1.Event{EventId: id, Revision: revision, CreateTime: created}
	return &tidingsv1.WatchEventResponse{
		ResumeToken: token,
		Message:     &tidingsv1.WatchEventResponse_Change{Change: &tidingsv1.EventChange{Kind: kind, Event: event}},
	}
}

func synced(token string) *tidingsv1.WatchEventResponse {
	return &tidingsv1.WatchEventResponse{
		ResumeToken: token, Message: &tidingsv1.WatchEventResponse_Synced{Synced: &tidingsv1.Synced{}},
	}
}

func bookmark(token string) *tidingsv1.WatchEventResponse {
	return &tidingsv1.WatchEventResponse{
		ResumeToken: token, Message: &tidingsv1.WatchEventResponse_Bookmark{Bookmark: &tidingsv1.Bookmark{}},
	}
}

func reset(token string) *tidingsv1.WatchEventResponse {
	return &tidingsv1.WatchEventResponse{
		ResumeToken: token, Message: &tidingsv1.WatchEventResponse_Reset_{Reset_: &tidingsv1.Reset{}},
	}
}

func unreadable(token, id string) *tidingsv1.WatchEventResponse {
	return &tidingsv1.WatchEventResponse{
		ResumeToken: token,
		Message:     &tidingsv1.WatchEventResponse_Unreadable{Unreadable: &tidingsv1.Unreadable{EventId: id}},
	}
}

// unknown is a message of a kind that is not known yet.
func unknown(token string) *tidingsv1.WatchEventResponse {
	message := &tidingsv1.WatchEventResponse{ResumeToken: token}
	message.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), nil))
	return message
}

func closing(token string, reason tidingsv1.ClosingReason, after time.Duration) *tidingsv1.WatchEventResponse {
	message := &tidingsv1.Closing{Reason: reason}
	if after > 0 {
		message.ReconnectAfter = durationpb.New(after)
	}
	return &tidingsv1.WatchEventResponse{
		ResumeToken: token, Message: &tidingsv1.WatchEventResponse_Closing{Closing: message},
	}
}

// failure is a status as the service makes it, with what is given of a reason and a delay.
func failure(code codes.Code, reason string, after time.Duration) error {
	var details []protoadapt.MessageV1
	if reason != "" {
		details = append(details, &errdetails.ErrorInfo{Domain: "tidings", Reason: reason})
	}
	if after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	st, err := status.New(code, "scripted").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}
