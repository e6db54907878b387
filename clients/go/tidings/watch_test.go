package tidings_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tidings-dev/tidings/clients/go/tidings"
	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

const (
	terminal = tidingsv1.ClosingReason_CLOSING_REASON_TERMINAL
	draining = tidingsv1.ClosingReason_CLOSING_REASON_DRAINING
)

type messages = []*tidingsv1.WatchEventResponse

// The last connection of a watch that goes on: it brings the end.
var theEnd = connection{messages: messages{change("t9", updated, "a", 9), closing("", terminal, 0)}}

type watchTest struct {
	connections []connection
	want        []string      // what is delivered
	tokens      []string      // what each stream begins after
	code        codes.Code    // of the error at the end, if there is one
	reason      string        // of the error
	waits       time.Duration // at least, and at most half a second more
}

// goesOn tests that a watch goes on after a connection that delivers nothing, with this token.
func goesOn(token string, first connection) watchTest {
	return watchTest{connections: []connection{first, theEnd}, want: []string{"UPDATED a 9"}, tokens: []string{"", token}}
}

// endsWith tests that a watch ends with an error.
func endsWith(code codes.Code, reason string) watchTest {
	return watchTest{
		connections: []connection{{messages: messages{synced("t1")}, err: failure(code, reason, 0)}, theEnd},
		want:        []string{"synced"}, tokens: []string{""}, code: code, reason: reason,
	}
}

func TestWatch(t *testing.T) {
	tests := map[string]watchTest{
		"plain": {
			connections: []connection{{messages: messages{
				change("t1", initial, "a", 1), synced("t2"), bookmark("t3"), change("t4", updated, "a", 2), closing("t5", terminal, 0),
			}}},
			want:   []string{"INITIAL a 1", "synced", "UPDATED a 2"},
			tokens: []string{""},
		},
		"dropped in the snapshot, which begins again": {
			connections: []connection{
				{messages: messages{change("s", initial, "a", 1), change("s", initial, "b", 1)}, err: failure(codes.Unavailable, "", 0)},
				{messages: messages{change("s", initial, "a", 2), change("s", initial, "b", 1), synced("t1"), closing("", terminal, 0)}},
			},
			want:   []string{"INITIAL a 1", "INITIAL b 1", "INITIAL a 2", "synced"},
			tokens: []string{"", "s"},
		},
		"repeated and older changes": {
			connections: []connection{{messages: messages{
				change("t1", initial, "a", 2), change("t2", updated, "a", 2), change("t3", updated, "a", 1), closing("", terminal, 0),
			}}},
			want:   []string{"INITIAL a 2"},
			tokens: []string{""},
		},
		"expired at the revision told last": {
			connections: []connection{{messages: messages{
				change("t1", initial, "a", 2), change("t2", expired, "a", 2), change("t3", expired, "a", 2), closing("", terminal, 0),
			}}},
			want:   []string{"INITIAL a 2", "EXPIRED a 2"},
			tokens: []string{""},
		},
		"reset": {
			connections: []connection{{messages: messages{
				change("t1", initial, "a", 2), reset("t2"), change("t3", initial, "a", 2), synced("t4"), closing("", terminal, 0),
			}}},
			want:   []string{"INITIAL a 2", "reset", "INITIAL a 2", "synced"},
			tokens: []string{""},
		},
		"unreadable": {
			connections: []connection{{messages: messages{unreadable("t1", "x"), closing("", terminal, 0)}}},
			want:        []string{"unreadable x"},
			tokens:      []string{""},
		},
		"change of an unknown kind": {
			connections: []connection{{messages: messages{change("t1", 99, "a", 1), closing("", terminal, 0)}}},
			want:        []string{"99 a 1"},
			tokens:      []string{""},
		},
		"token of a bookmark":       goesOn("t1", connection{messages: messages{bookmark("t1")}, err: failure(codes.Unavailable, "", 0)}),
		"token of an unknown kind":  goesOn("t1", connection{messages: messages{unknown("t1")}, err: failure(codes.Unavailable, "", 0)}),
		"no token after one":        goesOn("t1", connection{messages: messages{bookmark("t1"), bookmark("")}, err: failure(codes.Unavailable, "", 0)}),
		"OK without closing":        goesOn("t1", connection{messages: messages{bookmark("t1")}}),
		"terminal, then not OK":     goesOn("t1", connection{messages: messages{closing("t1", terminal, 0)}, err: failure(codes.Unavailable, "", 0)}),
		"draining, then OK":         goesOn("t1", connection{messages: messages{closing("t1", draining, 0)}}),
		"cancelled unasked":         goesOn("", connection{err: failure(codes.Canceled, "", 0)}),
		"deadline unasked":          goesOn("", connection{err: failure(codes.DeadlineExceeded, "", 0)}),
		"unknown, of a proxy":       goesOn("", connection{err: failure(codes.Unknown, "", 0)}),
		"internal, of a proxy":      goesOn("", connection{err: failure(codes.Internal, "", 0)}),
		"unavailable with a reason": goesOn("", connection{err: failure(codes.Unavailable, "A_NEW_REASON", 0)}),
		"too many calls":            goesOn("", connection{err: failure(codes.ResourceExhausted, "RATE_LIMITED", 0)}),
		"too many watches":          goesOn("", connection{err: failure(codes.ResourceExhausted, "WATCH_LIMIT", 0)}),
		"stalled":                   goesOn("", connection{err: failure(codes.ResourceExhausted, "WATCHER_STALLED", 0)}),

		"message too large":        endsWith(codes.ResourceExhausted, ""),
		"internal, of Tidings":     endsWith(codes.Internal, "INTERNAL"),
		"internal, a new reason":   endsWith(codes.Internal, "A_NEW_REASON"),
		"unknown, of Tidings":      endsWith(codes.Unknown, "A_NEW_REASON"),
		"not found":                endsWith(codes.NotFound, "EVENT_NOT_FOUND"),
		"history lost":             endsWith(codes.OutOfRange, "HISTORY_LOST"),
		"not allowed":              endsWith(codes.PermissionDenied, "PERMISSION_DENIED"),
		"not authenticated":        endsWith(codes.Unauthenticated, "UNAUTHENTICATED"),
		"token refused":            endsWith(codes.InvalidArgument, "RESUME_TOKEN_INVALID"),
		"corrupt":                  endsWith(codes.DataLoss, "CORRUPT_RECORD"),
		"not allowed in its state": endsWith(codes.FailedPrecondition, "RUN_CLOSED"),
		"unimplemented":            endsWith(codes.Unimplemented, ""),

		"waits as the status says": {
			connections: []connection{{err: failure(codes.Unavailable, "STORE_UNAVAILABLE", 3*time.Second)}, theEnd},
			want:        []string{"UPDATED a 9"}, tokens: []string{"", ""}, waits: 3 * time.Second,
		},
		"waits as closing says, whatever the status": {
			connections: []connection{
				{messages: messages{closing("t1", draining, 2*time.Second)}, err: failure(codes.Unavailable, "DRAINING", 9*time.Second)},
				theEnd,
			},
			want: []string{"UPDATED a 9"}, tokens: []string{"", "t1"}, waits: 2 * time.Second,
		},
		"waits a minute at most for the status": {
			connections: []connection{{err: failure(codes.Unavailable, "", time.Hour)}, theEnd},
			want:        []string{"UPDATED a 9"}, tokens: []string{"", ""}, waits: time.Minute,
		},
		"waits a minute at most for closing": {
			connections: []connection{{messages: messages{closing("t1", draining, time.Hour)}}, theEnd},
			want:        []string{"UPDATED a 9"}, tokens: []string{"", "t1"}, waits: time.Minute,
		},
		"silent from the beginning": {
			connections: []connection{{silent: true}, theEnd},
			want:        []string{"UPDATED a 9"}, tokens: []string{"", ""}, waits: 35 * time.Second,
		},
		"silent after a message": {
			connections: []connection{{messages: messages{synced("t1")}, silent: true}, theEnd},
			want:        []string{"synced", "UPDATED a 9"}, tokens: []string{"", "t1"}, waits: 35 * time.Second,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{connections: test.connections}
				client, began := play(t, s), time.Now()
				got, err := collect(t.Context(), client.Watch(&tidingsv1.WatchEventRequest{}))
				if status.Code(err) != test.code || (err != nil && !strings.Contains(err.Error(), test.reason)) {
					t.Errorf("ended with %v, want %v %s", err, test.code, test.reason)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("delivered %q, want %q", got, test.want)
				}
				if tokens := s.tokens(); !slices.Equal(tokens, test.tokens) {
					t.Errorf("streams began after %q, want %q", tokens, test.tokens)
				}
				if waited := time.Since(began); waited < test.waits || waited > test.waits+time.Second/2 {
					t.Errorf("took %v, want %v", waited, test.waits)
				}
			})
		})
	}
}

// collect takes everything that a watch delivers.
func collect(ctx context.Context, watch *tidings.Watch[*tidingsv1.WatchEventResponse]) (got []string, err error) {
	for message, err := range watch.All(ctx) {
		if err != nil {
			return got, err
		}
		got = append(got, describe(message))
	}
	return got, nil
}

func describe(message *tidingsv1.WatchEventResponse) string {
	switch said := message.GetMessage().(type) {
	case *tidingsv1.WatchEventResponse_Change:
		kind := strings.TrimPrefix(said.Change.Kind.String(), "CHANGE_KIND_")
		return fmt.Sprintf("%s %s %d", kind, said.Change.Event.EventId, said.Change.Event.Revision)
	case *tidingsv1.WatchEventResponse_Synced:
		return "synced"
	case *tidingsv1.WatchEventResponse_Reset_:
		return "reset"
	case *tidingsv1.WatchEventResponse_Unreadable:
		return "unreadable " + said.Unreadable.EventId
	default:
		return fmt.Sprintf("not to be delivered: %v", message)
	}
}

// A watch sends the request as it was given, but for the place to begin at and the time that is left.
func TestWatchRepeatsItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{connections: []connection{
			{err: failure(codes.Unavailable, "", 4*time.Second)},
			{messages: messages{bookmark("t1")}, err: failure(codes.Unavailable, "", 4*time.Second)},
			{err: failure(codes.Unavailable, "", 1500*time.Millisecond)},
			{err: failure(codes.Unavailable, "", time.Minute)},
		}}
		request := &tidingsv1.WatchEventRequest{
			Scope:             &tidingsv1.WatchEventRequest_RunId{RunId: "run"},
			Start:             &tidingsv1.WatchEventRequest_LiveOnly{LiveOnly: true},
			HeartbeatInterval: durationpb.New(2 * time.Second),
			MaxDuration:       durationpb.New(10 * time.Second),
			StayOpen:          true,
		}
		given, began := proto.CloneOf(request), time.Now()
		if _, err := collect(t.Context(), play(t, s).Watch(request)); err != nil {
			t.Errorf("ended with %v, want the end of its time", err)
		}
		if waited := time.Since(began); waited != 10*time.Second {
			t.Errorf("ended after %v, want the 10s that were asked for", waited)
		}
		if !proto.Equal(request, given) {
			t.Errorf("the caller's request became %v", request)
		}
		lefts := []time.Duration{10 * time.Second, 6 * time.Second, 2 * time.Second, time.Second}
		for i, left := range lefts {
			want := proto.CloneOf(given)
			want.MaxDuration = durationpb.New(left)
			if i >= 2 {
				want.Start = &tidingsv1.WatchEventRequest_ResumeToken{ResumeToken: "t1"}
			}
			if !proto.Equal(s.requests[i], want) {
				t.Errorf("stream %d was asked for with %v, want %v", i+1, s.requests[i], want)
			}
		}
		if len(s.requests) != len(lefts) {
			t.Errorf("%d streams, want %d", len(s.requests), len(lefts))
		}
	})
}

func TestWatchBeginsAfterTheCallersToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{connections: []connection{{err: failure(codes.Unavailable, "", 0)}, theEnd}}
		watch := play(t, s).Watch(&tidingsv1.WatchEventRequest{
			Start: &tidingsv1.WatchEventRequest_ResumeToken{ResumeToken: "mine"},
		})
		if token := watch.ResumeToken(); token != "mine" {
			t.Errorf("the token is %q before the first message, want the caller's", token)
		}
		if _, err := collect(t.Context(), watch); err != nil {
			t.Error(err)
		}
		if tokens := s.tokens(); !slices.Equal(tokens, []string{"mine", "mine"}) {
			t.Errorf("streams began after %q, want the caller's token", tokens)
		}
		if token := watch.ResumeToken(); token != "t9" {
			t.Errorf("the token is %q at the end, want that of the last message that had one", token)
		}
	})
}

func TestWatchGoesOnAfterABreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{connections: []connection{
			{messages: messages{change("t1", initial, "a", 1), change("t2", updated, "a", 2)}, silent: true},
			{messages: messages{change("t2", updated, "a", 2), closing("", terminal, 0)}},
		}}
		watch := play(t, s).Watch(&tidingsv1.WatchEventRequest{})
		for _, err := range watch.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if token := watch.ResumeToken(); token != "t1" {
				t.Errorf("the token is %q, want that of the message", token)
			}
			break
		}
		if synctest.Wait(); s.ended != 1 {
			t.Error("the stream stays open after the break")
		}
		got, err := collect(t.Context(), watch)
		if want := []string{"UPDATED a 2"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("delivered %q, %v after the break, want %q", got, err, want)
		}
		if tokens := s.tokens(); !slices.Equal(tokens, []string{"", "t1"}) {
			t.Errorf("streams began after %q", tokens)
		}
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	waiting := map[string]connection{
		"for a message":   {silent: true},
		"to connect anew": {err: failure(codes.Unavailable, "", time.Minute)},
	}
	for name, waitingOn := range waiting {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := play(t, &script{connections: []connection{waitingOn}})
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				began := time.Now()
				_, err := collect(ctx, client.Watch(&tidingsv1.WatchEventRequest{}))
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
					t.Errorf("ended after %v with %v, want the context's error", time.Since(began), err)
				}
			})
		})
	}
}

// The time that the caller takes over a message is not the service's silence, nor counts it for giving up.
func TestWatchWaitsForItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{connections: []connection{theEnd}}
		client := play(t, s, tidings.WithGiveUpAfter(time.Hour))
		for _, err := range client.Watch(&tidingsv1.WatchEventRequest{}).All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(24 * time.Hour)
		}
		if len(s.requests) != 1 {
			t.Errorf("%d streams, want the one", len(s.requests))
		}
	})
}

func TestWatchGivesUp(t *testing.T) {
	tests := map[string]struct {
		connection connection
		limit      time.Duration
		says       string
	}{
		"on a service that fails":          {connection{err: failure(codes.Unavailable, "NOT_READY", 0)}, time.Minute, "NOT_READY"},
		"on one that ends without closing": {connection{}, time.Minute, "before everything was told"},
		"on one that is silent":            {connection{silent: true}, time.Minute, "nothing was heard"},
		"on one that is silent, soon":      {connection{silent: true}, 20 * time.Second, "nothing was heard"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{connections: []connection{{messages: messages{synced("t1")}, silent: true}, test.connection}}
				client := play(t, s, tidings.WithGiveUpAfter(test.limit))
				began := time.Now()
				_, err := collect(t.Context(), client.Watch(&tidingsv1.WatchEventRequest{}))
				if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), test.says) {
					t.Errorf("gave up with %v, want the last failure: %s", err, test.says)
				}
				if waited := time.Since(began); waited > test.limit || waited < test.limit-10*time.Second {
					t.Errorf("gave up after %v, want %v or one wait less", waited, test.limit)
				}
			})
		})
	}
}

// Bookmarks show that the service is there.
func TestWatchHearsBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{connections: []connection{{
			messages: append(slices.Repeat(messages{bookmark("t1")}, 100), closing("", terminal, 0)), every: 30 * time.Second,
		}}}
		client := play(t, s, tidings.WithGiveUpAfter(time.Minute))
		if _, err := collect(t.Context(), client.Watch(&tidingsv1.WatchEventRequest{})); err != nil || len(s.requests) != 1 {
			t.Errorf("%d streams ended with %v, want the one with OK", len(s.requests), err)
		}
	})
}

// outage is a watch that begins when there is no server. It returns how long after the server is there a connection
// is, and how long after that the first message.
func outage(t *testing.T, duration time.Duration) (connected, delivered time.Duration) {
	s := &script{connections: []connection{theEnd}}
	way, back := listen(t, s.server()), time.Now().Add(duration)
	client := dial(t, "passthrough:///tidings.example", tidings.WithInsecure(),
		through(func(ctx context.Context, address string) (net.Conn, error) {
			if connected = time.Since(back); connected < 0 {
				return nil, errors.New("there is no server")
			}
			return way(ctx, address)
		}))
	if _, err := collect(t.Context(), client.Watch(&tidingsv1.WatchEventRequest{})); err != nil {
		t.Fatal(err)
	}
	return connected, time.Since(back) - connected
}

func TestWatchGoesOnAsSoonAsThereIsAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, delivered := outage(t, 20*time.Second); delivered != 0 {
			t.Errorf("the first message came %v after the connection", delivered)
		}
	})
}

// gRPC's own waits for a connection would grow to two minutes.
func TestWatchOutlastsALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if connected, delivered := outage(t, 10*time.Minute); connected > 12*time.Second || delivered > 10*time.Second {
			t.Errorf("connected %v after the server was back, and went on %v after that", connected, delivered)
		}
	})
}

// cable is a connection that can be cut without a sign of it.
type cable struct {
	net.Conn
	cut *atomic.Bool
}

func (c cable) Write(data []byte) (int, error) {
	if c.cut.Load() {
		return len(data), nil
	}
	return c.Conn.Write(data)
}

// A new stream over a dead connection is as silent as the old one was.
func TestWatchLeavesADeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{connections: []connection{{messages: messages{synced("t1")}, silent: true}, theEnd}}
		way := listen(t, s.server())
		var cables []cable
		client := dial(t, "passthrough:///tidings.example", tidings.WithInsecure(),
			through(func(ctx context.Context, address string) (net.Conn, error) {
				conn, err := way(ctx, address)
				cables = append(cables, cable{conn, new(atomic.Bool)})
				return cables[len(cables)-1], err
			}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		for _, err := range client.Watch(&tidingsv1.WatchEventRequest{}).All(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			cables[0].cut.Store(true)
		}
		if waited := time.Since(began); waited > time.Minute || len(cables) != 2 {
			t.Errorf("went on after %v over %d connections, want a second one within a minute", waited, len(cables))
		}
	})
}

// Each failure in a row may wait longer; a message begins the row anew.
func TestWatchBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := connection{err: failure(codes.Unavailable, "", 0)}
		s := &script{connections: slices.Concat(slices.Repeat([]connection{failing}, 30), []connection{theEnd})}
		began := time.Now()
		if _, err := collect(t.Context(), play(t, s).Watch(&tidingsv1.WatchEventRequest{})); err != nil {
			t.Error(err)
		}
		// 23 of the waits are between 0 and 10 s. The chance that they do not come to this is less than one in a million.
		if waited := time.Since(began); waited < 40*time.Second || waited > 200*time.Second {
			t.Errorf("30 failures took %v", waited)
		}

		working := connection{messages: messages{bookmark("t1")}, err: failure(codes.Unavailable, "", 0)}
		s = &script{connections: slices.Concat(slices.Repeat([]connection{working}, 30), []connection{theEnd})}
		began = time.Now()
		if _, err := collect(t.Context(), play(t, s).Watch(&tidingsv1.WatchEventRequest{})); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited > 3*time.Second {
			t.Errorf("30 streams that brought a message took %v, want at most 0.1s for each", waited)
		}
	})
}

// runs is a RunService that ends its first stream in the middle.
type runs struct {
	tidingsv1.UnimplementedRunServiceServer
	requests []*tidingsv1.WatchRunRequest
}

func (r *runs) WatchRun(
	request *tidingsv1.WatchRunRequest, stream grpc.ServerStreamingServer[tidingsv1.WatchRunResponse],
) error {
	r.requests = append(r.requests, request)
	run := &tidingsv1.Run{RunId: "run", Revision: 1, CreateTime: created}
	for _, message := range []*tidingsv1.WatchRunResponse{
		{ResumeToken: "t1", Message: &tidingsv1.WatchRunResponse_Change{Change: &tidingsv1.RunChange{Run: run}}},
		{ResumeToken: "t2", Message: &tidingsv1.WatchRunResponse_Synced{Synced: &tidingsv1.Synced{}}},
		{Message: &tidingsv1.WatchRunResponse_Closing{Closing: &tidingsv1.Closing{Reason: terminal}}},
	}[:1+2*min(len(r.requests)-1, 1)] {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	return nil
}

func TestWatchRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, server := &runs{}, grpc.NewServer()
		tidingsv1.RegisterRunServiceServer(server, r)
		client := serve(t, server)
		request := &tidingsv1.WatchRunRequest{RunId: "run", MaxDuration: durationpb.New(time.Minute), StayOpen: true}
		var revisions []int64
		var syncs int
		for message, err := range client.WatchRun(request).All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if change := message.GetChange(); change != nil {
				revisions = append(revisions, change.Run.Revision)
			} else if message.GetSynced() != nil {
				syncs++
			}
		}
		if !slices.Equal(revisions, []int64{1}) || syncs != 1 {
			t.Errorf("delivered revisions %v and %d synced, want one of each", revisions, syncs)
		}
		if len(r.requests) != 2 || r.requests[1].ResumeToken != "t1" || !r.requests[1].StayOpen {
			t.Errorf("streams were asked for with %v", r.requests)
		}
	})
}
