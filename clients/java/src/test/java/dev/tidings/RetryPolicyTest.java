// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.rpc.Code;
import java.time.Duration;
import java.util.Optional;
import java.util.Random;
import java.util.random.RandomGenerator;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.provider.CsvSource;

class RetryPolicyTest {
    private static final RetryPolicy POLICY = RetryPolicy.DEFAULT;

    /** Draws the highest of all numbers. */
    private static final RandomGenerator HIGHEST = new Random() {
        private static final long serialVersionUID = 1;

        @Override
        public long nextLong(long bound) {
            return bound - 1;
        }
    };

    @ParameterizedTest
    @CsvSource({
        "UNAVAILABLE, STORE_UNAVAILABLE, true",
        "UNAVAILABLE, , true",
        "CANCELLED, , true",
        "DEADLINE_EXCEEDED, , true",
        "UNKNOWN, , true",
        "INTERNAL, , true",
        "INTERNAL, INTERNAL, false",
        "INTERNAL, OF_A_LATER_VERSION, false",
        "RESOURCE_EXHAUSTED, RATE_LIMITED, true",
        "RESOURCE_EXHAUSTED, WATCH_LIMIT, true",
        "RESOURCE_EXHAUSTED, WATCHER_STALLED, true",
        "RESOURCE_EXHAUSTED, , false",
        "INVALID_ARGUMENT, RESUME_TOKEN_INVALID, false",
        "NOT_FOUND, EVENT_NOT_FOUND, false",
        "PERMISSION_DENIED, PERMISSION_DENIED, false",
        "UNAUTHENTICATED, UNAUTHENTICATED, false",
        "OUT_OF_RANGE, HISTORY_LOST, false",
        "DATA_LOSS, CORRUPT_RECORD, false",
        "FAILED_PRECONDITION, TASK_TERMINAL, false",
        "UNIMPLEMENTED, , false",
    })
    void retriesWhatMayPass(Code code, String reason, boolean retryable) {
        var failure = reason == null
                ? ScriptedEvents.failure(code)
                : ScriptedEvents.failure(code, ScriptedEvents.reason(reason));

        assertEquals(retryable, RetryPolicy.isRetryable(TidingsException.from(failure)));
    }

    @ParameterizedTest
    @CsvSource({"0, 100", "1, 200", "6, 6400", "7, 10000", "1000000, 10000"})
    void backsOffExponentiallyToALimit(int failures, long millis) {
        assertEquals(Duration.ofMillis(millis), POLICY.delay(failures, Optional.empty(), HIGHEST));
    }

    @Test
    void backoffIsFullyJittered() {
        RandomGenerator lowest = new Random() {
            private static final long serialVersionUID = 1;

            @Override
            public long nextLong(long bound) {
                return 0;
            }
        };

        assertEquals(Duration.ZERO, POLICY.delay(5, Optional.empty(), lowest));
    }

    @ParameterizedTest
    @CsvSource({"500, 500", "60000, 60000", "3600000, 60000"})
    void waitsAsTheServiceAsksWithinReason(long asked, long millis) {
        assertEquals(
                Duration.ofMillis(millis), POLICY.delay(5, Optional.of(Duration.ofMillis(asked)), HIGHEST));
    }

    @Test
    void delayOfZeroIsNoLeaveToHammer() {
        assertEquals(Duration.ofMillis(100), POLICY.delay(0, Optional.of(Duration.ZERO), HIGHEST));
    }

    @Test
    void allowsForTwoHeartbeats() {
        assertEquals(Duration.ofSeconds(35), POLICY.silenceMax(Duration.ofSeconds(15)));
    }

    @Test
    void neverGivesUpByItself() {
        assertTrue(!POLICY.givesUpAfter(Duration.ofDays(365)));
        assertTrue(POLICY.withGiveUpAfter(Duration.ofSeconds(1)).givesUpAfter(Duration.ofSeconds(1)));
    }
}
