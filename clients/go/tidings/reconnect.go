package tidings

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/tidings-dev/tidings/clients/go/internal/pace"
	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

const (
	maxBackoff = 10 * time.Second

	// maxRetryAfter bounds what a service can ask for.
	maxRetryAfter = time.Minute
)

// awaitReconnect returns when it is time for another stream, or the error that ends the watch.
func (w *Watch[M]) awaitReconnect(ctx context.Context, closing *tidingsv1.Closing, failure error) error {
	if failure == io.EOF {
		failure = errUnfinished
	}
	if !isResumable(failure) {
		return failure
	}
	wait := pause(closing, failure, w.failures)
	w.failures++
	if w.giveUpAfter > 0 && time.Since(w.quiet)+wait >= w.giveUpAfter {
		return failure
	}
	if w.maxDuration > 0 {
		wait = min(wait, w.left())
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

// pause is how long to wait before a reconnect: what the service asked for in `closing` or in the status, else a
// random time that may be longer with every failure in a row.
func pause(closing *tidingsv1.Closing, err error, failures int) time.Duration {
	if after := closing.GetReconnectAfter().AsDuration(); after > 0 {
		return min(after, maxRetryAfter)
	}
	var failed *Error
	if errors.As(err, &failed) && failed.RetryAfter > 0 {
		return min(failed.RetryAfter, maxRetryAfter)
	}
	return rand.N(backoffBound(failures))
}

func backoffBound(failures int) time.Duration {
	return min(pace.Base<<min(failures, 16), maxBackoff)
}
