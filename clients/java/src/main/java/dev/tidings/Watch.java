// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import dev.tidings.v1.Closing;
import dev.tidings.v1.ClosingReason;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/**
 * Every change of what is watched, whatever happens to connections and servers meanwhile.
 *
 * <p>{@link #hasNext} waits for the next {@code change}, {@code synced}, {@code reset} or {@code unreadable}. It
 * returns false when the watch is complete: the service has said that there is nothing more to tell. A stream that ends
 * otherwise is resumed. What cannot be resumed is thrown as {@link TidingsException}; so is the caller's own end of it,
 * by {@link #close}, an interrupt or a cancelled {@link Context}, as CANCELLED.
 *
 * <p>One thread may iterate; any may close.
 */
public final class Watch<M> implements Iterator<M>, WatchHandle {
    private static final Duration SHORTEST_MAX_DURATION = Duration.ofSeconds(1); // Of the service.

    private final WatchSource<M> source;
    private final RetryPolicy policy;
    private final Context caller = Context.current();
    private final Context.CancellableContext scope = caller.withCancellation();
    private final CountDownLatch ended = new CountDownLatch(1);
    private final Delivered delivered = new Delivered();

    private volatile String resumeToken;
    private WatchStream<M> stream;
    private Closing closing;
    private int failures;
    private Optional<Long> firstOpened = Optional.empty();
    private long lastHeard;
    private M next;
    private String nextToken;
    private boolean complete;
    private TidingsException failure;

    Watch(WatchSource<M> source, RetryPolicy policy) {
        this.source = source;
        this.policy = policy;
        resumeToken = source.resumeToken();
        onEnd(ended::countDown);
    }

    @Override
    public boolean hasNext() {
        if (failure != null) {
            throw failure;
        }
        try {
            // The time before the caller asked is not the service's silence.
            lastHeard = System.nanoTime();
            while (next == null && !complete) {
                advance();
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw fail(new TidingsException(Status.CANCELLED.withDescription("the watching thread was interrupted")));
        }
        return next != null;
    }

    @Override
    public M next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        M message = next;
        next = null;
        remember(nextToken);
        return message;
    }

    @Override
    public String resumeToken() {
        return resumeToken;
    }

    @Override
    public void close() {
        scope.cancel(null);
    }

    /** Runs the action when the watch has ended in whatever way. */
    void onEnd(Runnable action) {
        scope.addListener(context -> action.run(), Runnable::run);
    }

    /** Delivers everything to the observer. An exception of the observer ends the watch. */
    void deliverTo(StreamObserver<M> observer) {
        try {
            forEachRemaining(observer::onNext);
        } catch (RuntimeException e) {
            observer.onError(e);
            return;
        } finally {
            close();
        }
        observer.onCompleted();
    }

    /** Does one thing that brings the watch on: opens a stream, takes a message, or waits to begin again. */
    private void advance() throws InterruptedException {
        if (stream == null) {
            open();
            return;
        }
        Optional<WatchStream.Item<M>> item = stream.next(patience());
        if (scope.isCancelled()) {
            throw fail(cancelled());
        } else if (item.isEmpty()) {
            stream.cancel("silent for too long");
            beginAgain(unavailable("the stream was silent for too long"));
        } else if (item.get().message() != null) {
            take(item.get().message());
        } else {
            end(item.get().status(), item.get().trailers());
        }
    }

    private void open() {
        Optional<Duration> left = source.maxDuration();
        if (firstOpened.isEmpty()) {
            firstOpened = Optional.of(System.nanoTime());
        } else if (left.isPresent()) {
            Duration rest = left.get().minus(since(firstOpened.get()));
            if (rest.compareTo(Duration.ZERO) <= 0) {
                finish();
                return;
            }
            left = Optional.of(max(rest, SHORTEST_MAX_DURATION));
        }
        closing = null;
        Context before = scope.attach();
        try {
            stream = source.open(resumeToken, left);
        } finally {
            scope.detach(before);
        }
    }

    private void take(M message) {
        lastHeard = System.nanoTime();
        failures = 0;
        Signal signal = source.signal(message);
        boolean wanted = switch (signal.kind()) {
            case CHANGE -> delivered.add(signal.change());
            case SYNCED -> {
                delivered.endSnapshot();
                yield true;
            }
            case RESET -> {
                delivered.clear();
                yield true;
            }
            case UNREADABLE -> true;
            case CLOSING -> {
                closing = signal.closing();
                yield false;
            }
            case OTHER -> false;
        };
        if (wanted) {
            next = message;
            nextToken = signal.resumeToken();
        } else {
            remember(signal.resumeToken());
        }
    }

    private void end(Status status, Metadata trailers) throws InterruptedException {
        if (!status.isOk()) {
            beginAgain(new TidingsException(status, trailers));
        } else if (closing != null && closing.getReason() != ClosingReason.CLOSING_REASON_DRAINING) {
            finish();
        } else {
            beginAgain(unavailable("the stream ended before the watch was complete"));
        }
    }

    /** Waits until a new stream may be opened, or throws the failure if that is of no use. */
    private void beginAgain(TidingsException why) throws InterruptedException {
        stream = null;
        Duration delay = policy.delay(failures++, askedDelay(why), ThreadLocalRandom.current());
        Duration silence = since(lastHeard).plus(delay);
        if (!RetryPolicy.isRetryable(why) || policy.givesUpAfter(silence)) {
            throw fail(why);
        }
        if (ended.await(delay.toNanos(), TimeUnit.NANOSECONDS)) {
            throw fail(cancelled());
        }
    }

    private Optional<Duration> askedDelay(TidingsException why) {
        return closing != null && closing.hasReconnectAfter()
                ? Optional.of(WatchSource.duration(closing.getReconnectAfter()))
                : why.retryAfter();
    }

    /** Returns how long to wait for a message. */
    private Duration patience() {
        Duration silenceMax = policy.silenceMax(source.heartbeat());
        return policy.giveUpAfter()
                .map(limit -> RetryPolicy.min(limit.minus(since(lastHeard)), silenceMax))
                .orElse(silenceMax);
    }

    private void finish() {
        complete = true;
        close();
    }

    private TidingsException fail(TidingsException why) {
        failure = why;
        close();
        return why;
    }

    private TidingsException cancelled() {
        return new TidingsException(
                caller.isCancelled()
                        ? Contexts.statusFromCancelled(caller)
                        : Status.CANCELLED.withDescription("the watch was closed"));
    }

    private void remember(String token) {
        if (!token.isEmpty()) {
            resumeToken = token;
        }
    }

    private static TidingsException unavailable(String why) {
        return new TidingsException(Status.UNAVAILABLE.withDescription(why));
    }

    private static Duration since(long nanoTime) {
        return Duration.ofNanos(System.nanoTime() - nanoTime);
    }

    private static Duration max(Duration a, Duration b) {
        return a.compareTo(b) > 0 ? a : b;
    }
}
