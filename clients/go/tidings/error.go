package tidings

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

// Error is why a call or a watch failed. Get at it with errors.As; status.Code and status.FromError also work.
type Error struct {
	// Code is the status of the call.
	Code codes.Code
	// Message says what happened, for people.
	Message string
	// Reason says what happened, for programs. It is unspecified if the failure is not the service's own, such as
	// that of a connection, or has a reason that this client does not know.
	Reason tidingsv1.ErrorReason
	// Metadata has what the reason documents: ids, and values such as `current_revision`.
	Metadata map[string]string
	// Violations are all fields of the request that break their rules.
	Violations []*errdetails.BadRequest_FieldViolation
	// RetryAfter is how long to wait before another try; 0 if the service does not say.
	RetryAfter time.Duration

	status *status.Status
	info   *errdetails.ErrorInfo
}

func (e *Error) Error() string {
	if e.info != nil {
		return fmt.Sprintf("%s (%s): %s", code.Code(e.Code), e.info.Reason, e.Message)
	}
	return fmt.Sprintf("%s: %s", code.Code(e.Code), e.Message)
}

// GRPCStatus is the status as it came.
func (e *Error) GRPCStatus() *status.Status {
	return e.status
}

// typed makes an Error of what gRPC returns.
func typed(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	e := &Error{Code: st.Code(), Message: st.Message(), status: st}
	for _, detail := range st.Details() {
		e.take(detail)
	}
	return e
}

func (e *Error) take(detail any) {
	switch detail := detail.(type) {
	case *errdetails.ErrorInfo:
		if detail.Domain == "tidings" {
			e.info = detail
			e.Reason = tidingsv1.ErrorReason(tidingsv1.ErrorReason_value["ERROR_REASON_"+detail.Reason])
			e.Metadata = detail.Metadata
		}
	case *errdetails.BadRequest:
		e.Violations = detail.FieldViolations
	case *errdetails.RetryInfo:
		e.RetryAfter = detail.RetryDelay.AsDuration()
	}
}

// The failures of streams that say nothing themselves.
var (
	errSilent     = status.Error(codes.Unavailable, "nothing was heard from the service for too long")
	errUnfinished = typed(status.Error(codes.Unavailable, "the service ended the stream before everything was told"))
)

// isResumable reports whether a watch goes on after its stream ended with this error.
func isResumable(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return true
	case codes.Unknown, codes.Internal:
		return e.info == nil // a proxy or the transport reset the stream: the service says why it fails
	case codes.ResourceExhausted:
		switch e.Reason {
		case tidingsv1.ErrorReason_ERROR_REASON_RATE_LIMITED,
			tidingsv1.ErrorReason_ERROR_REASON_WATCH_LIMIT,
			tidingsv1.ErrorReason_ERROR_REASON_WATCHER_STALLED:
			return true
		}
	}
	return false
}
