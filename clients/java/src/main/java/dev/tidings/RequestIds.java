// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import com.github.f4b6a3.uuid.UuidCreator;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import dev.tidings.v1.BatchCreateEventsRequest;
import dev.tidings.v1.CreateEventRequest;
import dev.tidings.v1.CreateMissionRequest;
import dev.tidings.v1.CreateRunRequest;
import dev.tidings.v1.Event;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.MethodDescriptor;
import java.util.UUID;

/**
 * Gives every request that changes something an id, if the caller gave none, so that it may be retried: the retries are
 * below, and all carry the same one.
 */
final class RequestIds implements ClientInterceptor {
    @Override
    public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
        return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
            @Override
            @SuppressWarnings("unchecked") // The identified request is of the same type.
            public void sendMessage(Q request) {
                super.sendMessage((Q) identified((Message) request));
            }
        };
    }

    static Message identified(Message request) {
        Message.Builder identified = request.toBuilder();
        if (identified instanceof CreateEventRequest.Builder create) {
            identify(create);
        } else if (identified instanceof BatchCreateEventsRequest.Builder batch) {
            batch.getRequestsBuilderList().forEach(RequestIds::identify);
        } else if (identified instanceof CreateMissionRequest.Builder create) {
            if (create.hasMission() && create.getMission().getMissionId().isEmpty()) {
                create.getMissionBuilder().setMissionId(newId());
            }
        } else if (identified instanceof CreateRunRequest.Builder create) {
            if (create.hasRun() && create.getRun().getRunId().isEmpty()) {
                create.getRunBuilder().setRunId(newId());
            }
        } else {
            FieldDescriptor requestId = request.getDescriptorForType().findFieldByName("request_id");
            if (requestId == null || !request.getField(requestId).equals("")) {
                return request;
            }
            identified.setField(requestId, UUID.randomUUID().toString());
        }
        return identified.build();
    }

    private static void identify(CreateEventRequest.Builder create) {
        Event event = create.getEvent();
        if (create.hasEvent() && event.getEventId().isEmpty() && event.getIdempotencyKey().isEmpty()) {
            create.getEventBuilder().setEventId(newId());
        }
    }

    private static String newId() {
        return UuidCreator.getTimeOrderedEpoch().toString();
    }
}
