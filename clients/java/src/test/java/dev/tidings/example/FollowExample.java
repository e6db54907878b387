// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings.example;

import dev.tidings.TidingsClient;
import dev.tidings.Watch;
import dev.tidings.v1.CreateEventRequest;
import dev.tidings.v1.EventChange;
import dev.tidings.v1.TaskState;
import dev.tidings.v1.UpdateTaskStatusRequest;
import dev.tidings.v1.WatchEventRequest;
import dev.tidings.v1.WatchEventResponse;
import java.util.concurrent.CompletableFuture;
import java.util.function.Consumer;

/** Submits a task and follows it to its end, while a worker moves it. */
public final class FollowExample {
    private static final int PAGES = 3;

    private FollowExample() {}

    public static void main(String[] arguments) {
        String target = arguments.length > 0 ? arguments[0] : "localhost:50051";
        try (TidingsClient client = TidingsClient.builder(target).build()) {
            follow(client, System.out::println);
        }
    }

    static void follow(TidingsClient client, Consumer<String> tell) {
        CreateEventRequest.Builder request = CreateEventRequest.newBuilder();
        request.getEventBuilder().setType("example.translate").getStatusBuilder(); // With a status it is a task.
        String taskId = client.events().createEvent(request.build()).getEvent().getEventId();

        CompletableFuture<Void> worker = null;
        try (Watch<WatchEventResponse> watch =
                client.watch(WatchEventRequest.newBuilder().setEventId(taskId).build())) {
            while (watch.hasNext()) {
                WatchEventResponse message = watch.next();
                if (message.hasChange()) {
                    tell.accept(line(message.getChange()));
                } else if (message.hasSynced() && worker == null) {
                    worker = CompletableFuture.runAsync(() -> work(client, taskId));
                }
            }
        }
        worker.join();
    }

    private static String line(EventChange change) {
        var status = change.getEvent().getStatus();
        var progress = status.getProgress();
        return status.getState() + " " + progress.getCompleted() + "/" + progress.getTotal();
    }

    private static void work(TidingsClient client, String taskId) {
        UpdateTaskStatusRequest.Builder update =
                UpdateTaskStatusRequest.newBuilder().setTaskId(taskId).setState(TaskState.TASK_STATE_RUNNING);
        for (int page = 0; page <= PAGES; page++) {
            update.getProgressBuilder().setCompleted(page).setTotal(PAGES).setUnit("pages");
            client.tasks().updateTaskStatus(update.build());
        }
        client.tasks().updateTaskStatus(update.setState(TaskState.TASK_STATE_SUCCEEDED).build());
    }
}
