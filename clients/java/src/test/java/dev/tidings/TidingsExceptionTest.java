// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;

import com.google.rpc.BadRequest;
import com.google.rpc.Code;
import com.google.rpc.ErrorInfo;
import dev.tidings.v1.ErrorReason;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import org.junit.jupiter.api.Test;

class TidingsExceptionTest {
    @Test
    void carriesWhatTheServiceSaid() {
        ErrorInfo info = ScriptedEvents.reason("REVISION_MISMATCH").toBuilder()
                .putMetadata("current_revision", "4")
                .build();
        TidingsException failure =
                TidingsException.from(ScriptedEvents.failure(Code.ABORTED, info, ScriptedEvents.retryAfter(2)));

        assertEquals(Status.Code.ABORTED, failure.code());
        assertEquals(ErrorReason.ERROR_REASON_REVISION_MISMATCH, failure.reason());
        assertEquals(Map.of("current_revision", "4"), failure.metadata());
        assertEquals(Optional.of(Duration.ofSeconds(2)), failure.retryAfter());
        assertEquals(List.of(), failure.violations());
    }

    @Test
    void carriesAllViolations() {
        BadRequest.Builder request = BadRequest.newBuilder();
        request.addFieldViolationsBuilder().setField("event.type");
        request.addFieldViolationsBuilder().setField("ttl");

        TidingsException failure =
                TidingsException.from(ScriptedEvents.failure(Code.INVALID_ARGUMENT, request.build()));

        assertEquals(
                List.of("event.type", "ttl"),
                failure.violations().stream().map(BadRequest.FieldViolation::getField).toList());
    }

    @Test
    void isFoundInWhatFuturesThrow() {
        var cause = ScriptedEvents.failure(Code.NOT_FOUND, ScriptedEvents.reason("EVENT_NOT_FOUND"));

        TidingsException failure = TidingsException.from(new ExecutionException(cause));

        assertEquals(ErrorReason.ERROR_REASON_EVENT_NOT_FOUND, failure.reason());
        assertSame(failure, TidingsException.from(failure));
    }

    @Test
    void knowsNoReasonOfOthers() {
        ErrorInfo others = ErrorInfo.newBuilder()
                .setDomain("proxy.example")
                .setReason("EVENT_NOT_FOUND")
                .build();

        assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, reasonOf(others));
        assertEquals(ErrorReason.UNRECOGNIZED, reasonOf(ScriptedEvents.reason("OF_A_LATER_VERSION")));
    }

    @Test
    void standsDetailsThatCannotBeRead() {
        Metadata trailers = new Metadata();
        trailers.put(
                Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER), new byte[] {-1, -1});

        TidingsException failure = TidingsException.from(Status.UNAVAILABLE.asRuntimeException(trailers));

        assertEquals(Status.Code.UNAVAILABLE, failure.code());
        assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, failure.reason());
    }

    private static ErrorReason reasonOf(ErrorInfo info) {
        return TidingsException.from(ScriptedEvents.failure(Code.NOT_FOUND, info)).reason();
    }
}
