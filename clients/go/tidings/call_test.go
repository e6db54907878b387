package tidings_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/tidings-dev/tidings/clients/go/tidings"
	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

// answering is a server with all services, each call of which is answered, with nothing or an error, by a function.
func answering(answer func(ctx context.Context, request any) error, opts ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append(opts, grpc.UnaryInterceptor(func(
		ctx context.Context, request any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler,
	) (any, error) {
		return &emptypb.Empty{}, answer(ctx, request) // no bytes: an empty response of any type
	}))...)
	tidingsv1.RegisterEventServiceServer(server, tidingsv1.UnimplementedEventServiceServer{})
	tidingsv1.RegisterTaskServiceServer(server, tidingsv1.UnimplementedTaskServiceServer{})
	tidingsv1.RegisterMissionServiceServer(server, tidingsv1.UnimplementedMissionServiceServer{})
	tidingsv1.RegisterRunServiceServer(server, tidingsv1.UnimplementedRunServiceServer{})
	return server
}

// invoke makes a call of a stub.
func invoke[Request, Response proto.Message](
	call func(context.Context, Request, ...grpc.CallOption) (Response, error), request Request,
) func(context.Context) (proto.Message, error) {
	return func(ctx context.Context) (proto.Message, error) {
		_, err := call(ctx, request)
		return request, err
	}
}

// mutations are one call of each that changes something, without an id of its own.
func mutations(c *tidings.Client) map[string]func(context.Context) (proto.Message, error) {
	create := &tidingsv1.CreateEventRequest{Event: &tidingsv1.Event{Type: "x"}}
	return map[string]func(context.Context) (proto.Message, error){
		"CreateEvent": invoke(c.Events.CreateEvent, create),
		"BatchCreateEvents": invoke(c.Events.BatchCreateEvents,
			&tidingsv1.BatchCreateEventsRequest{Requests: []*tidingsv1.CreateEventRequest{create, create}}),
		"DeleteEvent":      invoke(c.Events.DeleteEvent, &tidingsv1.DeleteEventRequest{EventId: "a"}),
		"UpdateTaskStatus": invoke(c.Tasks.UpdateTaskStatus, &tidingsv1.UpdateTaskStatusRequest{TaskId: "a"}),
		"CancelTask":       invoke(c.Tasks.CancelTask, &tidingsv1.CancelTaskRequest{TaskId: "a"}),
		"CreateMission": invoke(c.Missions.CreateMission,
			&tidingsv1.CreateMissionRequest{Mission: &tidingsv1.Mission{Name: "m"}}),
		"UpdateMission": invoke(c.Missions.UpdateMission,
			&tidingsv1.UpdateMissionRequest{Mission: &tidingsv1.Mission{MissionId: "m"}}),
		"DeleteMission": invoke(c.Missions.DeleteMission, &tidingsv1.DeleteMissionRequest{MissionId: "m"}),
		"CreateRun": invoke(c.Runs.CreateRun,
			&tidingsv1.CreateRunRequest{Run: &tidingsv1.Run{MissionId: "m"}}),
		"UpdateRun":      invoke(c.Runs.UpdateRun, &tidingsv1.UpdateRunRequest{RunId: "r"}),
		"PauseRun":       invoke(c.Runs.PauseRun, &tidingsv1.PauseRunRequest{RunId: "r"}),
		"ResumeRun":      invoke(c.Runs.ResumeRun, &tidingsv1.ResumeRunRequest{RunId: "r"}),
		"CancelRun":      invoke(c.Runs.CancelRun, &tidingsv1.CancelRunRequest{RunId: "r"}),
		"CreatePlan":     invoke(c.Runs.CreatePlan, &tidingsv1.CreatePlanRequest{RunId: "r"}),
		"AddPlanSteps":   invoke(c.Runs.AddPlanSteps, &tidingsv1.AddPlanStepsRequest{RunId: "r"}),
		"UpdatePlanStep": invoke(c.Runs.UpdatePlanStep, &tidingsv1.UpdatePlanStepRequest{RunId: "r", StepId: "s"}),
	}
}

// ids are what makes a request safe to repeat.
func ids(request any) []string {
	switch request := request.(type) {
	case *tidingsv1.CreateEventRequest:
		return []string{request.Event.EventId}
	case *tidingsv1.BatchCreateEventsRequest:
		var all []string
		for _, item := range request.Requests {
			all = append(all, item.Event.EventId)
		}
		return all
	case *tidingsv1.CreateMissionRequest:
		return []string{request.Mission.MissionId}
	case *tidingsv1.CreateRunRequest:
		return []string{request.Run.RunId}
	default:
		return []string{request.(interface{ GetRequestId() string }).GetRequestId()}
	}
}

func TestMutationsAreRetriedWithTheSameID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen [][]string
		client := serve(t, answering(func(_ context.Context, request any) error {
			seen = append(seen, ids(request))
			if len(seen)%4 != 0 {
				return failure(codes.Unavailable, "STORE_UNAVAILABLE", 0)
			}
			return nil
		}))
		for name, call := range mutations(client) {
			seen = nil
			for range 2 {
				request, err := call(t.Context())
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if slices.ContainsFunc(ids(request), func(id string) bool { return id != "" }) {
					t.Errorf("%s: the caller's request became %v", name, request)
				}
			}
			if len(seen) != 8 {
				t.Fatalf("%s: %d attempts for two calls that succeed the fourth time, want 8", name, len(seen))
			}
			for i, sent := range seen {
				if first := seen[i/4*4]; !slices.Equal(sent, first) {
					t.Errorf("%s: attempt %d has ids %q, the first of its call %q", name, i+1, sent, first)
				}
			}
			checkNewIDs(t, name, slices.Concat(seen[0], seen[4]))
		}
	})
}

func checkNewIDs(t *testing.T, name string, ids []string) {
	t.Helper()
	version := uuid.Version(4)
	if strings.Contains(name, "Create") && name != "CreatePlan" {
		version = 7
	}
	distinct := map[string]bool{}
	for _, id := range ids {
		parsed, err := uuid.Parse(id)
		if err != nil || parsed.Version() != version {
			t.Errorf("%s: id %q is not a UUIDv%d", name, id, version)
		}
		distinct[id] = true
	}
	if len(distinct) != len(ids) {
		t.Errorf("%s: two requests share an id: %q", name, ids)
	}
}

func TestIDsOfTheCallerAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got proto.Message
		client := serve(t, answering(func(_ context.Context, request any) error {
			got = request.(proto.Message)
			return nil
		}))
		for _, call := range []func(context.Context) (proto.Message, error){
			invoke(client.Events.CreateEvent, &tidingsv1.CreateEventRequest{Event: &tidingsv1.Event{EventId: "mine"}}),
			invoke(client.Events.CreateEvent, &tidingsv1.CreateEventRequest{Event: &tidingsv1.Event{IdempotencyKey: "mine"}}),
			invoke(client.Events.CreateEvent, &tidingsv1.CreateEventRequest{}),
			invoke(client.Missions.CreateMission, &tidingsv1.CreateMissionRequest{Mission: &tidingsv1.Mission{MissionId: "mine"}}),
			invoke(client.Missions.CreateMission, &tidingsv1.CreateMissionRequest{}),
			invoke(client.Runs.CreateRun, &tidingsv1.CreateRunRequest{Run: &tidingsv1.Run{RunId: "mine"}}),
			invoke(client.Runs.CreateRun, &tidingsv1.CreateRunRequest{}),
			invoke(client.Tasks.UpdateTaskStatus, &tidingsv1.UpdateTaskStatusRequest{TaskId: "a", RequestId: "mine"}),
			invoke(client.Events.GetEvent, &tidingsv1.GetEventRequest{EventId: "a"}),
		} {
			if sent, err := call(t.Context()); err != nil || !proto.Equal(got, sent) {
				t.Errorf("the service got %v, %v, want %v", got, err, sent)
			}
		}
	})
}

func TestRetriesAreBounded(t *testing.T) {
	attempts := map[codes.Code]int{codes.Unavailable: 4, codes.Aborted: 1, codes.Internal: 1, codes.ResourceExhausted: 1}
	for code, want := range attempts {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got int
				client := serve(t, answering(func(context.Context, any) error {
					got++
					return failure(code, "A_REASON", 0)
				}))
				_, err := client.Events.GetEvent(t.Context(), &tidingsv1.GetEventRequest{EventId: "a"})
				if status.Code(err) != code || got != want {
					t.Errorf("%d attempts ended with %v, want %d with %v", got, err, want, code)
				}
			})
		})
	}
}

func TestDeadlines(t *testing.T) {
	tests := map[string]struct {
		wait, deadline, want time.Duration
	}{
		"of a call":                {want: 10 * time.Second},
		"of the caller, later":     {deadline: time.Minute, want: time.Minute},
		"of the caller, earlier":   {deadline: time.Second, want: time.Second},
		"of a wait":                {wait: 20 * time.Second, want: 25 * time.Second},
		"of a wait, by the caller": {wait: 20 * time.Second, deadline: time.Second, want: time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := serve(t, answering(func(ctx context.Context, _ any) error {
					<-ctx.Done()
					return ctx.Err()
				}))
				ctx, began := t.Context(), time.Now()
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				call := invoke(client.Tasks.GetTaskStatus, &tidingsv1.GetTaskStatusRequest{TaskId: "a"})
				if test.wait > 0 {
					call = invoke(client.Tasks.WaitTaskStatus,
						&tidingsv1.WaitTaskStatusRequest{TaskId: "a", Timeout: durationpb.New(test.wait)})
				}
				if _, err := call(ctx); status.Code(err) != codes.DeadlineExceeded || time.Since(began) != test.want {
					t.Errorf("ended after %v with %v, want its deadline after %v", time.Since(began), err, test.want)
				}
			})
		})
	}
}

func TestError(t *testing.T) {
	violation := &errdetails.BadRequest_FieldViolation{Field: "event.type", Description: "value is required"}
	st, err := status.New(codes.InvalidArgument, "event.type: value is required").WithDetails(
		&errdetails.ErrorInfo{Domain: "tidings", Reason: "INVALID_FIELD", Metadata: map[string]string{"event_id": "a"}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{violation}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)},
	)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		client := serve(t, answering(func(context.Context, any) error { return st.Err() }))
		_, err := client.Events.GetEvent(t.Context(), &tidingsv1.GetEventRequest{})
		var failed *tidings.Error
		if !errors.As(err, &failed) {
			t.Fatalf("%v is no tidings.Error", err)
		}
		if failed.Code != codes.InvalidArgument || failed.Reason != tidingsv1.ErrorReason_ERROR_REASON_INVALID_FIELD ||
			failed.Metadata["event_id"] != "a" || failed.RetryAfter != 3*time.Second {
			t.Errorf("the error is %+v", failed)
		}
		if len(failed.Violations) != 1 || !proto.Equal(failed.Violations[0], violation) {
			t.Errorf("the violations are %v", failed.Violations)
		}
		if want := "INVALID_ARGUMENT (INVALID_FIELD): event.type: value is required"; err.Error() != want {
			t.Errorf("the error reads %q, want %q", err, want)
		}
		if status.Code(err) != codes.InvalidArgument || !proto.Equal(status.Convert(err).Proto(), st.Proto()) {
			t.Errorf("the status is %v, want %v", status.Convert(err), st)
		}
	})
}

func TestErrorOfAnother(t *testing.T) {
	st, err := status.New(codes.PermissionDenied, "no").WithDetails(&errdetails.ErrorInfo{Domain: "proxy.example", Reason: "INTERNAL"})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		client := serve(t, answering(func(context.Context, any) error { return st.Err() }))
		_, err := client.Events.GetEvent(t.Context(), &tidingsv1.GetEventRequest{})
		var failed *tidings.Error
		if !errors.As(err, &failed) || failed.Reason != tidingsv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
			t.Errorf("the error is %+v, want one without a reason", failed)
		}
		if want := "PERMISSION_DENIED: no"; err.Error() != want {
			t.Errorf("the error reads %q, want %q", err, want)
		}
	})
}

// An interceptor of the caller is around the client's own.
func TestInterceptorOfTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen error
		server := answering(func(context.Context, any) error { return failure(codes.NotFound, "EVENT_NOT_FOUND", 0) })
		client := serve(t, server, tidings.WithDialOptions(grpc.WithUnaryInterceptor(func(
			ctx context.Context, method string, request, response any,
			conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			seen = invoke(ctx, method, request, response, conn, opts...)
			return seen
		})))
		_, err := client.Events.GetEvent(t.Context(), &tidingsv1.GetEventRequest{EventId: "a"})
		var failed *tidings.Error
		if !errors.As(seen, &failed) || err != seen {
			t.Errorf("the interceptor saw %v and the caller got %v, want one tidings.Error", seen, err)
		}
	})
}
