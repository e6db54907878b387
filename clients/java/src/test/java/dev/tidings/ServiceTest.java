// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.tidings.v1.CancelRunRequest;
import dev.tidings.v1.CreateEventRequest;
import dev.tidings.v1.CreateMissionRequest;
import dev.tidings.v1.CreateRunRequest;
import dev.tidings.v1.ErrorReason;
import dev.tidings.v1.Event;
import dev.tidings.v1.GetEventRequest;
import dev.tidings.v1.Run;
import dev.tidings.v1.TaskState;
import dev.tidings.v1.WaitTaskStatusRequest;
import dev.tidings.v1.WatchEventRequest;
import dev.tidings.v1.WatchEventResponse;
import dev.tidings.v1.WatchRunRequest;
import dev.tidings.v1.WatchRunResponse;
import io.grpc.StatusRuntimeException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/** The client and the service at TIDINGS_TEST_TARGET. */
@EnabledIfEnvironmentVariable(named = "TIDINGS_TEST_TARGET", matches = ".+")
@Timeout(60)
class ServiceTest {
    private TidingsClient client;

    @BeforeEach
    void connect() {
        client = TidingsClient.builder(System.getenv("TIDINGS_TEST_TARGET")).build();
    }

    @AfterEach
    void disconnect() {
        client.close();
    }

    @Test
    void failuresCarryReasonAndMetadata() {
        GetEventRequest request = GetEventRequest.newBuilder().setEventId("no such event").build();

        TidingsException failure = TidingsException.from(
                assertThrows(StatusRuntimeException.class, () -> client.events().getEvent(request)));

        assertEquals(ErrorReason.ERROR_REASON_EVENT_NOT_FOUND, failure.reason());
        assertEquals(Map.of("event_id", "no such event"), failure.metadata());
    }

    @Test
    void failuresCarryViolations() {
        CreateEventRequest request =
                CreateEventRequest.newBuilder().setEvent(Event.getDefaultInstance()).build();

        TidingsException failure = TidingsException.from(
                assertThrows(StatusRuntimeException.class, () -> client.events().createEvent(request)));

        assertEquals("event.type", failure.violations().get(0).getField());
    }

    @Test
    void waitComesBackBeforeItsDeadline() {
        CreateEventRequest.Builder task = CreateEventRequest.newBuilder();
        task.getEventBuilder().setType("test").getStatusBuilder();
        String id = client.events().createEvent(task.build()).getEvent().getEventId();
        WaitTaskStatusRequest.Builder wait = WaitTaskStatusRequest.newBuilder().setTaskId(id);
        wait.getTimeoutBuilder().setSeconds(1);

        assertEquals(false, client.tasks().waitTaskStatus(wait.build()).getSatisfied());
    }

    @Test
    void watchOfAnExpiringEventTellsItsExpiry() {
        CreateEventRequest.Builder fact = CreateEventRequest.newBuilder();
        fact.getEventBuilder().setType("test");
        fact.getTtlBuilder().setSeconds(1);
        String id = client.events().createEvent(fact.build()).getEvent().getEventId();
        WatchEventRequest request =
                WatchEventRequest.newBuilder().setEventId(id).setStayOpen(true).build();

        List<String> told = new ArrayList<>();
        client.watch(request).forEachRemaining(message -> told.add(word(message)));

        assertEquals(List.of("CHANGE_KIND_INITIAL", "SYNCED", "CHANGE_KIND_EXPIRED"), told);
    }

    @Test
    void watchOfARunEndsWithIt() {
        CreateMissionRequest.Builder mission = CreateMissionRequest.newBuilder();
        mission.getMissionBuilder().setName("test");
        String missionId = client.missions().createMission(mission.build()).getMission().getMissionId();
        CreateRunRequest creation = CreateRunRequest.newBuilder()
                .setRun(Run.newBuilder().setMissionId(missionId))
                .build();
        String runId = client.runs().createRun(creation).getRun().getRunId();

        List<TaskState> states = new ArrayList<>();
        try (Watch<WatchRunResponse> watch =
                client.watchRun(WatchRunRequest.newBuilder().setRunId(runId).build())) {
            while (watch.hasNext()) {
                WatchRunResponse message = watch.next();
                if (message.hasChange()) {
                    states.add(message.getChange().getRun().getState());
                } else {
                    client.runs().cancelRun(CancelRunRequest.newBuilder().setRunId(runId).build());
                }
            }
        }

        assertEquals(List.of(TaskState.TASK_STATE_PENDING, TaskState.TASK_STATE_CANCELLED), states);
    }

    private static String word(WatchEventResponse message) {
        return message.hasChange()
                ? message.getChange().getKind().name()
                : message.getMessageCase().name();
    }
}
