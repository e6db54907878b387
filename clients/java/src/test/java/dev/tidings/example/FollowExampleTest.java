// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings.example;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidings.TidingsClient;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/** Runs against the service at TIDINGS_TEST_TARGET. */
@EnabledIfEnvironmentVariable(named = "TIDINGS_TEST_TARGET", matches = ".+")
class FollowExampleTest {
    @Test
    @Timeout(60)
    void followsToTheEnd() {
        List<String> told = new ArrayList<>();
        try (TidingsClient client = TidingsClient.builder(System.getenv("TIDINGS_TEST_TARGET")).build()) {
            FollowExample.follow(client, told::add);
        }

        assertEquals("TASK_STATE_PENDING 0/0", told.get(0));
        assertTrue(told.stream().anyMatch(line -> line.startsWith("TASK_STATE_RUNNING")), told.toString());
        assertEquals("TASK_STATE_SUCCEEDED 3/3", told.get(told.size() - 1));
    }
}
