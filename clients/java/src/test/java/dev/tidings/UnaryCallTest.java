// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Message;
import dev.tidings.v1.BatchCreateEventsRequest;
import dev.tidings.v1.CreateEventRequest;
import dev.tidings.v1.CreateEventResponse;
import dev.tidings.v1.CreateMissionRequest;
import dev.tidings.v1.CreateRunRequest;
import dev.tidings.v1.Event;
import dev.tidings.v1.EventServiceGrpc.EventServiceImplBase;
import dev.tidings.v1.GetEventRequest;
import dev.tidings.v1.GetEventResponse;
import dev.tidings.v1.TaskServiceGrpc;
import dev.tidings.v1.TaskServiceGrpc.TaskServiceImplBase;
import dev.tidings.v1.UpdateTaskStatusRequest;
import dev.tidings.v1.UpdateTaskStatusResponse;
import dev.tidings.v1.WaitTaskStatusRequest;
import dev.tidings.v1.WaitTaskStatusResponse;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What the client adds to the calls of the stubs: deadlines, retries and the ids that make them safe. */
@Timeout(60)
class UnaryCallTest {
    private final List<Message> requests = new CopyOnWriteArrayList<>();
    private final List<Duration> timesLeft = new CopyOnWriteArrayList<>();
    private final AtomicInteger failuresLeft = new AtomicInteger();

    @Test
    void readIsRetried() throws Exception {
        failuresLeft.set(3);
        try (Wire wire = new Wire(new Events()); TidingsClient client = wire.client()) {
            client.events().getEvent(GetEventRequest.newBuilder().setEventId("a").build());
        }
        assertEquals(4, requests.size());
    }

    @Test
    void retriesAreBounded() throws Exception {
        failuresLeft.set(4);
        try (Wire wire = new Wire(new Events()); TidingsClient client = wire.client()) {
            StatusRuntimeException failure = assertThrows(
                    StatusRuntimeException.class,
                    () -> client.events().getEvent(GetEventRequest.getDefaultInstance()));
            assertEquals(Status.Code.UNAVAILABLE, TidingsException.from(failure).code());
        }
    }

    @Test
    void creationIsRetriedUnderOneId() throws Exception {
        failuresLeft.set(1);
        CreateEventRequest.Builder request = CreateEventRequest.newBuilder();
        request.getEventBuilder().setType("test");
        try (Wire wire = new Wire(new Events()); TidingsClient client = wire.client()) {
            client.events().createEvent(request.build());
            client.events().createEvent(request.build());
        }
        List<String> ids = requests.stream()
                .map(each -> ((CreateEventRequest) each).getEvent().getEventId())
                .toList();
        assertEquals(ids.get(0), ids.get(1));
        assertNotEquals(ids.get(1), ids.get(2));
        assertEquals(7, UUID.fromString(ids.get(0)).version());
    }

    @Test
    void changeIsRetriedUnderOneRequestId() throws Exception {
        failuresLeft.set(1);
        try (Wire wire = new Wire(new Tasks()); TidingsClient client = wire.client()) {
            client.tasks().updateTaskStatus(UpdateTaskStatusRequest.getDefaultInstance());
        }
        List<String> ids = requests.stream()
                .map(each -> ((UpdateTaskStatusRequest) each).getRequestId())
                .toList();
        assertEquals(ids.get(0), ids.get(1));
        assertEquals(4, UUID.fromString(ids.get(0)).version());
    }

    @Test
    void idsOfTheCallerAreKept() {
        CreateEventRequest.Builder byId = CreateEventRequest.newBuilder();
        byId.getEventBuilder().setEventId("mine");
        CreateEventRequest.Builder byKey = CreateEventRequest.newBuilder();
        byKey.getEventBuilder().setIdempotencyKey("mine");
        CreateMissionRequest.Builder mission = CreateMissionRequest.newBuilder();
        mission.getMissionBuilder().setMissionId("mine");
        CreateRunRequest.Builder run = CreateRunRequest.newBuilder();
        run.getRunBuilder().setRunId("mine");
        for (Message request : List.of(
                byId.build(),
                byKey.build(),
                mission.build(),
                run.build(),
                CreateEventRequest.getDefaultInstance(), // Invalid, and to be told so.
                UpdateTaskStatusRequest.newBuilder().setRequestId("mine").build(),
                GetEventRequest.newBuilder().setEventId("mine").build())) {
            assertEquals(request, RequestIds.identified(request));
        }
    }

    @Test
    void everyCreationGetsAnId() {
        CreateMissionRequest.Builder mission = CreateMissionRequest.newBuilder();
        mission.getMissionBuilder().setName("m");
        CreateRunRequest.Builder run = CreateRunRequest.newBuilder();
        run.getRunBuilder().setMissionId("m");
        CreateEventRequest event = CreateEventRequest.newBuilder()
                .setEvent(Event.newBuilder().setType("test").addResults(com.google.protobuf.Value.getDefaultInstance()))
                .build();
        BatchCreateEventsRequest batch =
                BatchCreateEventsRequest.newBuilder().addRequests(event).addRequests(event).build();

        CreateMissionRequest identifiedMission = (CreateMissionRequest) RequestIds.identified(mission.build());
        CreateRunRequest identifiedRun = (CreateRunRequest) RequestIds.identified(run.build());
        BatchCreateEventsRequest identifiedBatch = (BatchCreateEventsRequest) RequestIds.identified(batch);

        assertFalse(identifiedMission.getMission().getMissionId().isEmpty());
        assertFalse(identifiedRun.getRun().getRunId().isEmpty());
        Event first = identifiedBatch.getRequests(0).getEvent();
        assertNotEquals(first.getEventId(), identifiedBatch.getRequests(1).getEvent().getEventId());
        assertEquals(event.getEvent(), first.toBuilder().clearEventId().build());
    }

    @Test
    void everyCallHasADeadline() throws Exception {
        try (Wire wire = new Wire(new Tasks()); TidingsClient client = wire.client()) {
            WaitTaskStatusRequest.Builder wait = WaitTaskStatusRequest.newBuilder();
            client.tasks().waitTaskStatus(wait.build());
            wait.getTimeoutBuilder().setSeconds(60);
            client.tasks().waitTaskStatus(wait.build());
            UpdateTaskStatusRequest update = UpdateTaskStatusRequest.getDefaultInstance();
            client.tasks().updateTaskStatus(update);
            client.tasks().withDeadlineAfter(1, TimeUnit.HOURS).updateTaskStatus(update);
            TaskServiceGrpc.newFutureStub(client.channel()).waitTaskStatus(wait.build()).get();
        }
        List<Long> allowed = List.of(35L, 65L, 10L, 3600L, 65L);
        for (int call = 0; call < allowed.size(); call++) {
            long left = timesLeft.get(call).toSeconds();
            assertTrue(left <= allowed.get(call) && left > allowed.get(call) - 5, timesLeft.toString());
        }
    }

    private <R> void answer(Message request, R response, StreamObserver<R> observer) {
        requests.add(request);
        timesLeft.add(Duration.ofNanos(Context.current().getDeadline().timeRemaining(TimeUnit.NANOSECONDS)));
        if (failuresLeft.getAndDecrement() > 0) {
            observer.onError(Status.UNAVAILABLE.asRuntimeException());
            return;
        }
        observer.onNext(response);
        observer.onCompleted();
    }

    private final class Events extends EventServiceImplBase {
        @Override
        public void getEvent(GetEventRequest request, StreamObserver<GetEventResponse> observer) {
            answer(request, GetEventResponse.getDefaultInstance(), observer);
        }

        @Override
        public void createEvent(CreateEventRequest request, StreamObserver<CreateEventResponse> observer) {
            answer(request, CreateEventResponse.getDefaultInstance(), observer);
        }
    }

    private final class Tasks extends TaskServiceImplBase {
        @Override
        public void updateTaskStatus(
                UpdateTaskStatusRequest request, StreamObserver<UpdateTaskStatusResponse> observer) {
            answer(request, UpdateTaskStatusResponse.getDefaultInstance(), observer);
        }

        @Override
        public void waitTaskStatus(WaitTaskStatusRequest request, StreamObserver<WaitTaskStatusResponse> observer) {
            answer(request, WaitTaskStatusResponse.getDefaultInstance(), observer);
        }
    }
}
