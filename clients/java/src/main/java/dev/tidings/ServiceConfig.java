// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import dev.tidings.v1.EventServiceGrpc;
import dev.tidings.v1.MissionServiceGrpc;
import dev.tidings.v1.RunServiceGrpc;
import dev.tidings.v1.TaskServiceGrpc;
import java.util.List;
import java.util.Map;

/** Which calls grpc retries by itself: all but watches, which know better how to begin again. */
final class ServiceConfig {
    private static final Map<String, ?> RETRIES = Map.of(
            "maxAttempts", 4.0,
            "initialBackoff", "0.1s",
            "maxBackoff", "2s",
            "backoffMultiplier", 2.0,
            "retryableStatusCodes", List.of("UNAVAILABLE"));

    static final Map<String, ?> DEFAULT = Map.of(
            "methodConfig",
            List.of(
                    Map.of("name", List.of(
                            method(EventServiceGrpc.SERVICE_NAME, "WatchEvent"),
                            method(RunServiceGrpc.SERVICE_NAME, "WatchRun"))),
                    Map.of(
                            "name",
                            List.of(
                                    service(EventServiceGrpc.SERVICE_NAME),
                                    service(TaskServiceGrpc.SERVICE_NAME),
                                    service(MissionServiceGrpc.SERVICE_NAME),
                                    service(RunServiceGrpc.SERVICE_NAME)),
                            "retryPolicy",
                            RETRIES)));

    private ServiceConfig() {}

    private static Map<String, String> service(String name) {
        return Map.of("service", name);
    }

    private static Map<String, String> method(String service, String method) {
        return Map.of("service", service, "method", method);
    }
}
