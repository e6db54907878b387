// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import dev.tidings.v1.ChangeKind;
import dev.tidings.v1.Event;
import dev.tidings.v1.ProjectScope;
import dev.tidings.v1.Run;
import dev.tidings.v1.TaskState;
import dev.tidings.v1.WatchEventRequest;
import dev.tidings.v1.WatchEventResponse;
import dev.tidings.v1.WatchRunRequest;
import dev.tidings.v1.WatchRunResponse;
import java.time.Duration;
import java.util.Arrays;
import java.util.Locale;
import java.util.Optional;
import java.util.function.Function;

/**
 * Watches as a user of the client would and prints what it is told, a JSON object a line, for tests that hold the
 * clients of all languages against the same script.
 *
 * <pre>
 * Conformance TARGET STEP...
 * Conformance --event-id ID TARGET
 * </pre>
 *
 * <p>The first form plays steps of a scripted service, and reconnects faster than is good for a real one; a step's name
 * says how to ask. The second form watches one event of a real service to its end.
 */
public final class Conformance {
    private static final RetryPolicy FAST =
            new RetryPolicy(Duration.ofMillis(500), Duration.ofMillis(10), Optional.empty());
    private static final int MAX_DURATION_SECONDS = 2;
    private static final String GIVEN_TOKEN = "given";

    private Conformance() {}

    public static void main(String[] arguments) {
        if (arguments[0].equals("--event-id")) {
            try (TidingsClient client = TidingsClient.builder(arguments[2]).build()) {
                WatchEventRequest request = WatchEventRequest.newBuilder().setEventId(arguments[1]).build();
                print("", client.watch(request), Conformance::delivery);
            }
            return;
        }
        try (TidingsClient client = TidingsClient.builder(arguments[0]).watchPolicy(FAST).build()) {
            Arrays.stream(arguments).skip(1).forEach(step -> play(client, step));
        }
    }

    private static void play(TidingsClient client, String step) {
        com.google.protobuf.Duration heartbeat = com.google.protobuf.Duration.newBuilder()
                .setSeconds(Long.parseLong(System.getenv("TIDINGS_HEARTBEAT_SECONDS")))
                .build();
        String prefix = "\"step\":" + quoted(step) + ",";
        if (step.startsWith("run-")) {
            WatchRunRequest request = WatchRunRequest.newBuilder()
                    .setRunId(step)
                    .setHeartbeatInterval(heartbeat)
                    .build();
            print(prefix, client.watchRun(request), Conformance::delivery);
        } else {
            WatchEventRequest request = request(step).setHeartbeatInterval(heartbeat).build();
            print(prefix, client.watch(request), Conformance::delivery);
        }
    }

    private static WatchEventRequest.Builder request(String step) {
        WatchEventRequest.Builder request = WatchEventRequest.newBuilder();
        if (step.startsWith("project-")) {
            request.setProject(ProjectScope.getDefaultInstance()).getFilterBuilder().addTypes(step);
        } else {
            request.setEventId(step);
        }
        if (step.startsWith("max-duration-")) {
            request.getMaxDurationBuilder().setSeconds(MAX_DURATION_SECONDS);
        } else if (step.startsWith("live-only-")) {
            request.setLiveOnly(true);
        } else if (step.startsWith("resumed-")) {
            request.setResumeToken(GIVEN_TOKEN);
        }
        return request;
    }

    private static <M> void print(String prefix, Watch<M> watch, Function<M, String> delivery) {
        try (watch) {
            watch.forEachRemaining(message -> line(prefix + "\"deliver\":" + delivery.apply(message)));
            line(prefix + "\"end\":\"complete\"");
        } catch (TidingsException e) {
            line(prefix + "\"end\":\"error\",\"code\":" + quoted(e.code().name()) + reason(e));
        }
    }

    private static String reason(TidingsException failure) {
        return switch (failure.reason()) {
            case ERROR_REASON_UNSPECIFIED, UNRECOGNIZED -> "";
            default -> ",\"reason\":" + quoted(bare(failure.reason(), "ERROR_REASON_"));
        };
    }

    private static String delivery(WatchEventResponse message) {
        if (!message.hasChange()) {
            return quoted(message.hasUnreadable()
                    ? "unreadable " + message.getUnreadable().getEventId()
                    : lower(message.getMessageCase()));
        }
        Event event = message.getChange().getEvent();
        return change(
                message.getChange().getKindValue(),
                event.getRevision(),
                event.getEventId(),
                event.getStatus().getState());
    }

    private static String delivery(WatchRunResponse message) {
        if (!message.hasChange()) {
            return quoted(message.hasUnreadable()
                    ? "unreadable " + message.getUnreadable().getRunId()
                    : lower(message.getMessageCase()));
        }
        Run run = message.getChange().getRun();
        return change(message.getChange().getKindValue(), run.getRevision(), run.getRunId(), run.getState());
    }

    private static String change(int kind, long revision, String id, TaskState state) {
        ChangeKind known = ChangeKind.forNumber(kind);
        String name = known == null ? String.valueOf(kind) : bare(known, "CHANGE_KIND_");
        return quoted(name + " " + revision + " " + id) + ",\"state\":" + quoted(bare(state, "TASK_STATE_"));
    }

    private static String bare(Enum<?> value, String prefix) {
        return value.name().replaceFirst("^" + prefix, "");
    }

    private static String lower(Enum<?> value) {
        return value.name().toLowerCase(Locale.ROOT);
    }

    /** Ids and names of the tests need no escapes. */
    private static String quoted(String text) {
        return '"' + text + '"';
    }

    private static void line(String members) {
        System.out.println("{" + members + "}");
    }
}
