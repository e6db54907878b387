package tidings

import (
	"context"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

const (
	defaultDeadline    = 10 * time.Second
	defaultWaitTimeout = 30 * time.Second
	waitMargin         = 5 * time.Second
)

// call is the interceptor of all unary calls: it sees to the deadline, the id and the type of the error.
func call(
	ctx context.Context, method string, request, response any,
	conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadline(request))
		defer cancel()
	}
	return typed(invoke(ctx, method, withID(request), response, conn, opts...))
}

func deadline(request any) time.Duration {
	wait, ok := request.(*tidingsv1.WaitTaskStatusRequest)
	switch {
	case !ok:
		return defaultDeadline
	case wait.Timeout == nil:
		return defaultWaitTimeout + waitMargin
	default:
		return wait.Timeout.AsDuration() + waitMargin
	}
}

// withID returns the request with an id that makes it safe to repeat. If it has none it gets one in a copy: the
// caller may use the request again, and means another one then.
func withID(request any) any {
	switch request := request.(type) {
	case *tidingsv1.CreateEventRequest:
		return withEventID(request)
	case *tidingsv1.BatchCreateEventsRequest:
		batch := proto.CloneOf(request)
		for i, item := range batch.Requests {
			batch.Requests[i] = withEventID(item)
		}
		return batch
	case *tidingsv1.CreateMissionRequest:
		if request.Mission != nil && request.Mission.MissionId == "" {
			request = proto.CloneOf(request)
			request.Mission.MissionId = newResourceID()
		}
		return request
	case *tidingsv1.CreateRunRequest:
		if request.Run != nil && request.Run.RunId == "" {
			request = proto.CloneOf(request)
			request.Run.RunId = newResourceID()
		}
		return request
	case proto.Message:
		return withRequestID(request)
	}
	return request
}

func withEventID(request *tidingsv1.CreateEventRequest) *tidingsv1.CreateEventRequest {
	if event := request.GetEvent(); event == nil || event.EventId != "" || event.IdempotencyKey != "" {
		return request
	}
	request = proto.CloneOf(request)
	request.Event.EventId = newResourceID()
	return request
}

func withRequestID(request proto.Message) proto.Message {
	field := request.ProtoReflect().Descriptor().Fields().ByName("request_id")
	if field == nil || request.ProtoReflect().Has(field) {
		return request
	}
	request = proto.Clone(request)
	request.ProtoReflect().Set(field, protoreflect.ValueOfString(uuid.NewString()))
	return request
}

// newResourceID makes ids as the service does: in the order of time.
func newResourceID() string {
	return uuid.Must(uuid.NewV7()).String()
}
