// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import static dev.tidings.ScriptedEvents.failure;
import static dev.tidings.ScriptedEvents.initial;
import static dev.tidings.ScriptedEvents.reason;
import static dev.tidings.ScriptedEvents.retryAfter;
import static dev.tidings.ScriptedEvents.synced;
import static dev.tidings.ScriptedEvents.terminal;
import static dev.tidings.ScriptedEvents.updated;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.rpc.Code;
import dev.tidings.v1.ErrorReason;
import dev.tidings.v1.EventServiceGrpc;
import dev.tidings.v1.GetEventRequest;
import dev.tidings.v1.ProjectScope;
import dev.tidings.v1.RunServiceGrpc.RunServiceImplBase;
import dev.tidings.v1.WatchEventRequest;
import dev.tidings.v1.WatchEventResponse;
import dev.tidings.v1.WatchRunRequest;
import dev.tidings.v1.WatchRunResponse;
import io.grpc.BindableService;
import io.grpc.Context;
import io.grpc.MethodDescriptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What is particular to the watch in Java; tests/clients holds the clients of all languages against one script. */
@Timeout(60)
class WatchTest {
    private static final StatusRuntimeException UNAVAILABLE = failure(Code.UNAVAILABLE, reason("STORE_UNAVAILABLE"));
    private static final WatchEventRequest PROJECT = WatchEventRequest.newBuilder()
            .setProject(ProjectScope.getDefaultInstance())
            // Longer than a test may take: what ends a wait here is not the watchdog.
            .setHeartbeatInterval(com.google.protobuf.Duration.newBuilder().setSeconds(60))
            .build();

    private final ScriptedEvents events = new ScriptedEvents();
    private Wire wire;
    private TidingsClient client;

    @BeforeEach
    void connect() throws Exception {
        wire = new Wire(events);
        client = wire.client();
    }

    @AfterEach
    void disconnect() {
        client.close();
        wire.close();
    }

    @Test
    void goesOnWhereItWas() {
        events.then(UNAVAILABLE, initial("1", "a", 1), synced("2"))
                .thenOk(synced("3"), updated("4", "a", 2), terminal("5"));

        Watch<WatchEventResponse> watch = client.watch(PROJECT);

        assertEquals(List.of("1", "2", "3", "4"), tokens(watch));
        assertEquals(List.of("", "2"), events.requests.stream().map(WatchEventRequest::getResumeToken).toList());
        assertEquals("5", watch.resumeToken());
    }

    @Test
    void tokenDoesNotRunAheadOfTheCaller() {
        events.thenOk(initial("1", "a", 1), synced("2"), terminal("3"));
        Watch<WatchEventResponse> watch = client.watch(PROJECT);

        watch.next();
        assertTrue(watch.hasNext());

        assertEquals("1", watch.resumeToken());
    }

    @Test
    void endIsKept() {
        events.thenOk(terminal("1"));
        Watch<WatchEventResponse> watch = client.watch(PROJECT);

        assertFalse(watch.hasNext());
        assertFalse(watch.hasNext());
        assertThrows(NoSuchElementException.class, watch::next);
    }

    @Test
    void failureIsThrownAndKept() {
        events.then(failure(Code.OUT_OF_RANGE, reason("HISTORY_LOST")), synced("1"));
        Watch<WatchEventResponse> watch = client.watch(PROJECT);
        watch.next();

        TidingsException failure = assertThrows(TidingsException.class, watch::hasNext);

        assertEquals(Status.Code.OUT_OF_RANGE, failure.code());
        assertEquals(ErrorReason.ERROR_REASON_HISTORY_LOST, failure.reason());
        assertSame(failure, assertThrows(TidingsException.class, watch::next));
        assertEquals("1", watch.resumeToken());
    }

    @Test
    void closeEndsAWaitForMessages() throws Exception {
        events.thenSilence(synced("1"));
        Watch<WatchEventResponse> watch = client.watch(PROJECT);
        watch.next();

        CompletableFuture<Boolean> waiting = waitFor(watch, "ConditionObject");
        watch.close();

        assertCancelled("the watch was closed", waiting);
    }

    @Test
    void closeEndsAWaitToReconnect() throws Exception {
        events.then(failure(Code.UNAVAILABLE, retryAfter(3600)));
        Watch<WatchEventResponse> watch = client.watch(PROJECT);

        CompletableFuture<Boolean> waiting = waitFor(watch, "CountDownLatch");
        watch.close();

        assertCancelled("the watch was closed", waiting);
    }

    @Test
    void closeOfTheClientEndsItsWatches() throws Exception {
        events.thenSilence(synced("1"));
        Watch<WatchEventResponse> watch = client.watch(PROJECT);
        watch.next();

        CompletableFuture<Boolean> waiting = waitFor(watch, "ConditionObject");
        client.close();

        assertCancelled("the watch was closed", waiting);
        assertCancelled("the watch was closed", CompletableFuture.supplyAsync(() -> client.watch(PROJECT).hasNext()));
    }

    @Test
    void endsWithTheContextOfItsCaller() throws Exception {
        events.thenSilence(synced("1"));
        Context.CancellableContext context = Context.current().withCancellation();
        Watch<WatchEventResponse> watch = context.call(() -> client.watch(PROJECT));
        watch.next();

        CompletableFuture<Boolean> waiting = waitFor(watch, "ConditionObject");
        context.cancel(new IllegalStateException("the caller's own caller went away"));

        assertCancelled("Context cancelled", waiting);
    }

    @Test
    void interruptEndsIt() throws Exception {
        events.thenSilence();
        Watch<WatchEventResponse> watch = client.watch(PROJECT);
        Thread.currentThread().interrupt();

        TidingsException failure = assertThrows(TidingsException.class, watch::hasNext);

        assertTrue(Thread.interrupted());
        assertEquals(Status.Code.CANCELLED, failure.code());
    }

    @Test
    void givesUpWhenToldTo() {
        events.then(failure(Code.UNAVAILABLE, reason("NOT_READY"), retryAfter(30)));
        RetryPolicy impatient = Wire.FAST.withGiveUpAfter(Duration.ofSeconds(20));
        try (TidingsClient other = TidingsClient.builder(wire.target()).watchPolicy(impatient).build()) {
            TidingsException failure =
                    assertThrows(TidingsException.class, other.watch(PROJECT)::hasNext);

            assertEquals(ErrorReason.ERROR_REASON_NOT_READY, failure.reason());
        }
    }

    @Test
    void givesUpOnSilence() {
        events.thenSilence();
        RetryPolicy impatient = Wire.FAST.withGiveUpAfter(Duration.ofMillis(100));
        try (TidingsClient other = TidingsClient.builder(wire.target()).watchPolicy(impatient).build()) {
            TidingsException failure =
                    assertThrows(TidingsException.class, other.watch(PROJECT)::hasNext);

            assertTrue(failure.getMessage().contains("silent"), failure.getMessage());
        }
    }

    @Test
    void reconnectsAtItsOwnPaceNotTheChannels() throws Exception {
        int connections = 10; // The channel alone would be at it for more than a minute.
        try (ServerSocket refusing = new ServerSocket(0);
                TidingsClient other = TidingsClient.builder("127.0.0.1:" + refusing.getLocalPort())
                        .watchPolicy(Wire.FAST)
                        .build()) {
            refusing.setSoTimeout(30_000);
            other.watch(PROJECT, new Recorder());
            for (int connection = 0; connection < connections; connection++) {
                refusing.accept().close();
            }
        }
    }

    @Test
    void holdsNoMoreThanItAskedFor() throws Exception {
        int count = 200;
        CountDownLatch sent = new CountDownLatch(1);
        events.then(stream -> {
            for (int number = 1; number <= count; number++) {
                stream.onNext(updated("t", "a", number));
            }
            stream.onNext(terminal("end"));
            stream.onCompleted();
            sent.countDown();
        });
        Watch<WatchEventResponse> watch = client.watch(PROJECT);
        watch.next();
        sent.await();
        // What was sent before the answer to another call has come with it.
        GetEventRequest unimplemented = GetEventRequest.getDefaultInstance();
        assertThrows(StatusRuntimeException.class, () -> client.events().getEvent(unimplemented));

        assertEquals(count - 1, tokens(watch).size());
        assertEquals(1, events.requests.size());
    }

    @Test
    void messageThatCannotBeParsedIsAFailure() throws Exception {
        byte[] cutShort = {0x12, 0x7f};
        var method = EventServiceGrpc.getWatchEventMethod().toBuilder(
                        EventServiceGrpc.getWatchEventMethod().getRequestMarshaller(), new Bytes())
                .build();
        BindableService broken = () -> ServerServiceDefinition.builder(EventServiceGrpc.SERVICE_NAME)
                .addMethod(method, ServerCalls.asyncServerStreamingCall((request, stream) -> stream.onNext(cutShort)))
                .build();
        try (Wire brokenWire = new Wire(broken); TidingsClient brokenClient = brokenWire.client()) {
            Watch<WatchEventResponse> watch = brokenClient.watch(PROJECT);

            assertEquals(
                    Status.Code.CANCELLED,
                    assertThrows(TidingsException.class, watch::hasNext).code());
        }
    }

    private static final class Bytes implements MethodDescriptor.Marshaller<byte[]> {
        @Override
        public InputStream stream(byte[] message) {
            return new ByteArrayInputStream(message);
        }

        @Override
        public byte[] parse(InputStream stream) {
            throw new UnsupportedOperationException();
        }
    }

    @Test
    void callsBackInOrderToTheEnd() throws Exception {
        events.then(UNAVAILABLE, initial("1", "a", 1)).thenOk(initial("2", "b", 1), synced("3"), terminal("4"));
        Recorder recorder = new Recorder();

        WatchHandle watch = client.watch(PROJECT, recorder);

        assertEquals(List.of("1", "2", "3", "completed"), recorder.take(4));
        assertEquals("4", watch.resumeToken());
    }

    @Test
    void closedCallbackHearsOfItOnce() throws Exception {
        events.thenSilence(synced("1"));
        Recorder recorder = new Recorder();
        WatchHandle watch = client.watch(PROJECT, recorder);
        recorder.take(1);

        watch.close();

        assertEquals(List.of("CANCELLED: the watch was closed"), recorder.take(1));
    }

    @Test
    void exceptionOfTheObserverEndsTheWatch() throws Exception {
        CountDownLatch cancelled = new CountDownLatch(1);
        events.then(stream -> {
            stream.setOnCancelHandler(cancelled::countDown);
            stream.onNext(synced("1"));
        });
        Recorder recorder = new Recorder() {
            @Override
            public void onNext(WatchEventResponse message) {
                throw new IllegalStateException("cannot take it");
            }
        };

        client.watch(PROJECT, recorder);

        assertEquals(List.of("cannot take it"), recorder.take(1));
        cancelled.await();
    }

    @Test
    void watchesRunsTheSameWay() throws Exception {
        List<String> asked = new ArrayList<>();
        RunServiceImplBase runs = new RunServiceImplBase() {
            @Override
            public void watchRun(WatchRunRequest request, StreamObserver<WatchRunResponse> observer) {
                asked.add(request.getResumeToken());
                WatchRunResponse.Builder message = WatchRunResponse.newBuilder().setResumeToken("1");
                message.getChangeBuilder().getRunBuilder().setRunId("r").setRevision(1);
                observer.onNext(message.build());
                if (asked.size() == 1) {
                    observer.onError(UNAVAILABLE);
                    return;
                }
                message.setResumeToken("2").getClosingBuilder().setReasonValue(1);
                observer.onNext(message.build());
                observer.onCompleted();
            }
        };
        try (Wire runWire = new Wire(runs); TidingsClient runClient = runWire.client()) {
            List<WatchRunResponse> told = new ArrayList<>();
            runClient.watchRun(WatchRunRequest.newBuilder().setRunId("r").build()).forEachRemaining(told::add);

            assertEquals(1, told.size());
            assertEquals(List.of("", "1"), asked);
        }
    }

    /** Asks for the next message in another thread, and returns when that waits: for a message or to reconnect. */
    private static CompletableFuture<Boolean> waitFor(Watch<?> watch, String blocker) throws InterruptedException {
        CompletableFuture<Boolean> answer = new CompletableFuture<>();
        Thread thread = new Thread(() -> {
            try {
                answer.complete(watch.hasNext());
            } catch (TidingsException e) {
                answer.completeExceptionally(e);
            }
        });
        thread.start();
        while (!String.valueOf(LockSupport.getBlocker(thread)).contains(blocker)) {
            if (Thread.interrupted()) {
                throw new InterruptedException("it did not wait");
            }
            Thread.onSpinWait();
        }
        return answer;
    }

    private static List<String> tokens(Watch<WatchEventResponse> watch) {
        List<String> tokens = new ArrayList<>();
        watch.forEachRemaining(message -> tokens.add(message.getResumeToken()));
        return tokens;
    }

    private static void assertCancelled(String why, CompletableFuture<?> waiting) {
        TidingsException failure = (TidingsException) assertThrows(Exception.class, waiting::get).getCause();
        assertEquals(Status.Code.CANCELLED, failure.code());
        assertTrue(failure.getMessage().contains(why), failure.getMessage());
    }

    private static class Recorder implements StreamObserver<WatchEventResponse> {
        private final BlockingQueue<String> heard = new LinkedBlockingQueue<>();

        List<String> take(int count) throws InterruptedException {
            List<String> taken = new ArrayList<>();
            while (taken.size() < count) {
                taken.add(Wire.take(heard));
            }
            return taken;
        }

        @Override
        public void onNext(WatchEventResponse message) {
            heard.add(message.getResumeToken());
        }

        @Override
        public void onError(Throwable failure) {
            heard.add(failure.getMessage());
        }

        @Override
        public void onCompleted() {
            heard.add("completed");
        }
    }
}
