package tidings

import (
	"context"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tidings-dev/tidings/clients/go/internal/pace"
	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

const defaultHeartbeat = 15 * time.Second

// Watch is one watch, over as many connections as it takes.
//
// It connects again by itself, with the newest resume token: when the connection or the server is lost, when the
// service asks for it, and when nothing is heard for more than two heartbeat intervals. It is not for use by several
// goroutines at once.
type Watch[M Message] struct {
	open        open[M]
	maxDuration time.Duration // 0: no limit
	silence     time.Duration
	giveUpAfter time.Duration // 0: never

	token    string
	memory   *memory
	started  time.Time // when the first stream was opened
	quiet    time.Time // since when nothing was heard
	failures int       // streams in a row that brought no message
}

// Message is what a Watch delivers: a *tidingsv1.WatchEventResponse or a *tidingsv1.WatchRunResponse.
type Message interface {
	*tidingsv1.WatchEventResponse | *tidingsv1.WatchRunResponse

	GetResumeToken() string
	GetSynced() *tidingsv1.Synced
	GetReset_() *tidingsv1.Reset
	GetUnreadable() *tidingsv1.Unreadable
	GetClosing() *tidingsv1.Closing
}

// open opens a stream: right after the message with the token if there is one, for the given time if it is not 0.
type open[M Message] func(ctx context.Context, token string, maxDuration time.Duration) (receiver[M], error)

type receiver[M Message] interface {
	Recv() (M, error)
}

// Watch watches events: one, or those of a run, a mission or the project. It connects when its messages are asked for.
func (c *Client) Watch(request *tidingsv1.WatchEventRequest) *Watch[*tidingsv1.WatchEventResponse] {
	request = proto.CloneOf(request)
	return newWatch(c, request, func(
		ctx context.Context, token string, maxDuration time.Duration,
	) (receiver[*tidingsv1.WatchEventResponse], error) {
		if token != "" {
			request.Start = &tidingsv1.WatchEventRequest_ResumeToken{ResumeToken: token}
		}
		if maxDuration != 0 {
			request.MaxDuration = durationpb.New(maxDuration)
		}
		return c.Events.WatchEvent(ctx, request, grpc.WaitForReady(true))
	})
}

// WatchRun watches one run with its plan. It connects when its messages are asked for.
func (c *Client) WatchRun(request *tidingsv1.WatchRunRequest) *Watch[*tidingsv1.WatchRunResponse] {
	request = proto.CloneOf(request)
	return newWatch(c, request, func(
		ctx context.Context, token string, maxDuration time.Duration,
	) (receiver[*tidingsv1.WatchRunResponse], error) {
		request.ResumeToken = token
		if maxDuration != 0 {
			request.MaxDuration = durationpb.New(maxDuration)
		}
		return c.Runs.WatchRun(ctx, request, grpc.WaitForReady(true))
	})
}

type watchRequest interface {
	GetResumeToken() string
	GetHeartbeatInterval() *durationpb.Duration
	GetMaxDuration() *durationpb.Duration
}

func newWatch[M Message](c *Client, request watchRequest, open open[M]) *Watch[M] {
	heartbeat := defaultHeartbeat
	if request.GetHeartbeatInterval() != nil {
		heartbeat = request.GetHeartbeatInterval().AsDuration()
	}
	return &Watch[M]{
		open:        open,
		maxDuration: request.GetMaxDuration().AsDuration(),
		silence:     2*heartbeat + pace.Slack,
		giveUpAfter: c.giveUpAfter,
		token:       request.GetResumeToken(),
		memory:      newMemory(),
	}
}

// All is every change, once and in order, and every `synced`, `reset` and `unreadable`.
//
// It ends when the service says that there is no more to come, and when the request's `max_duration` is over.
// Otherwise its last pair has an error: the context's if that is done, or an [*Error] if another try would not help.
// To range over it again after a break or an error is to go on where it stopped.
func (w *Watch[M]) All(ctx context.Context) iter.Seq2[M, error] {
	return func(yield func(M, error) bool) {
		w.quiet = time.Now()
		for !w.isOver() {
			var closing *tidingsv1.Closing
			var failure error
			for message, err := range w.stream(ctx) {
				if err != nil {
					failure = err
					break
				}
				if message.GetClosing() != nil {
					closing = message.GetClosing()
				}
				if w.take(message) && !yield(message, nil) {
					return
				}
			}
			if failure == io.EOF && isComplete(closing) {
				return
			}
			if err := w.awaitReconnect(ctx, closing, failure); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// ResumeToken is what another watch of the same can begin with to go on after the newest message. It is empty as long
// as there was none.
func (w *Watch[M]) ResumeToken() string {
	return w.token
}

// stream is what one stream brings, and last its error: io.EOF for status OK.
func (w *Watch[M]) stream(ctx context.Context) iter.Seq2[M, error] {
	return func(yield func(M, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		watchdog := time.AfterFunc(w.patience(), func() { cancel(errSilent) })
		defer watchdog.Stop()

		stream, err := w.open(ctx, w.token, w.nextDuration())
		for err == nil {
			var message M
			message, err = stream.Recv()
			if err != nil {
				break
			}
			watchdog.Stop() // the caller may take its time
			if !yield(message, nil) {
				return
			}
			w.quiet = time.Now()
			watchdog.Reset(w.patience())
		}
		if context.Cause(ctx) == errSilent {
			err = errSilent
		}
		yield(nil, typed(err))
	}
}

// take learns from a message, and reports whether the caller is to have it.
func (w *Watch[M]) take(message M) bool {
	w.failures = 0
	if token := message.GetResumeToken(); token != "" {
		w.token = token
	}
	switch {
	case message.GetUnreadable() != nil:
		return true
	case message.GetSynced() != nil:
		w.memory.synced()
		return true
	case message.GetReset_() != nil:
		w.memory = newMemory()
		return true
	}
	id, version, ok := changeOf(message)
	return ok && w.memory.admit(id, version)
}

// patience is how long the watch waits for the next message.
func (w *Watch[M]) patience() time.Duration {
	if w.giveUpAfter > 0 {
		return min(w.silence, w.giveUpAfter-time.Since(w.quiet))
	}
	return w.silence
}

// nextDuration is the `max_duration` of the next stream, which must be at least a second; 0 if there is none.
func (w *Watch[M]) nextDuration() time.Duration {
	if w.started.IsZero() {
		w.started = time.Now()
		return w.maxDuration
	}
	if w.maxDuration > 0 {
		return max(w.left(), time.Second)
	}
	return 0
}

func (w *Watch[M]) isOver() bool {
	return w.maxDuration > 0 && !w.started.IsZero() && w.left() <= 0
}

func (w *Watch[M]) left() time.Duration {
	return w.maxDuration - time.Since(w.started)
}

// isComplete reports whether a stream that ended with OK after this had told everything.
func isComplete(closing *tidingsv1.Closing) bool {
	return closing != nil && closing.Reason != tidingsv1.ClosingReason_CLOSING_REASON_DRAINING
}
