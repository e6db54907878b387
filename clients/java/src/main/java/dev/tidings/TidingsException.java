// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.tidings.v1.ErrorReason;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A failed call, with all that the service said about it.
 *
 * <p>Watches throw it. The stubs are grpc's own and throw its superclass, so one clause catches both:
 *
 * <pre>{@code
 * try {
 *     client.events().getEvent(request);
 * } catch (StatusRuntimeException e) {
 *     if (TidingsException.from(e).reason() == ErrorReason.ERROR_REASON_EVENT_NOT_FOUND) { ... }
 * }
 * }</pre>
 */
public final class TidingsException extends StatusRuntimeException {
    private static final long serialVersionUID = 1;
    private static final String DOMAIN = "tidings";
    private static final Metadata.Key<byte[]> DETAILS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

    TidingsException(Status status, Metadata trailers) {
        super(status, trailers);
    }

    TidingsException(Status status) {
        this(status, new Metadata());
    }

    /** Returns what a stub of any kind threw, or gave to its callback or future, as a failure of Tidings. */
    public static TidingsException from(Throwable failure) {
        if (failure instanceof TidingsException tidings) {
            return tidings;
        }
        Metadata trailers = Status.trailersFromThrowable(failure);
        return new TidingsException(Status.fromThrowable(failure), trailers == null ? new Metadata() : trailers);
    }

    /** Returns the code of the status. */
    public Status.Code code() {
        return getStatus().getCode();
    }

    /**
     * Returns why the call failed: UNSPECIFIED when it was not the service that said so, but the network, a proxy or
     * this client; UNRECOGNIZED when the service is newer than this client and the reason unknown to it.
     */
    public ErrorReason reason() {
        return info().map(info -> reason(info.getReason())).orElse(ErrorReason.ERROR_REASON_UNSPECIFIED);
    }

    /** Returns what belongs to the reason, such as the id of what was not found: see {@link ErrorReason}. */
    public Map<String, String> metadata() {
        return info().map(ErrorInfo::getMetadataMap).orElse(Map.of());
    }

    /** Returns every field of the request that breaks a rule. */
    public List<BadRequest.FieldViolation> violations() {
        return detail(BadRequest.class).map(BadRequest::getFieldViolationsList).orElse(List.of());
    }

    /** Returns how long to wait before trying again, if the service said so. */
    public Optional<Duration> retryAfter() {
        return detail(RetryInfo.class)
                .map(RetryInfo::getRetryDelay)
                .map(delay -> Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
    }

    private Optional<ErrorInfo> info() {
        return detail(ErrorInfo.class).filter(info -> info.getDomain().equals(DOMAIN));
    }

    private <T extends Message> Optional<T> detail(Class<T> type) {
        byte[] details = getTrailers().get(DETAILS);
        try {
            if (details != null) {
                for (Any detail : com.google.rpc.Status.parseFrom(details).getDetailsList()) {
                    if (detail.is(type)) {
                        return Optional.of(detail.unpack(type));
                    }
                }
            }
        } catch (InvalidProtocolBufferException e) {
            // A failure that is told badly is still that failure.
        }
        return Optional.empty();
    }

    private static ErrorReason reason(String name) {
        try {
            return ErrorReason.valueOf("ERROR_REASON_" + name);
        } catch (IllegalArgumentException e) {
            return ErrorReason.UNRECOGNIZED;
        }
    }
}
