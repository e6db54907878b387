// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.Code;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.tidings.v1.ChangeKind;
import dev.tidings.v1.ClosingReason;
import dev.tidings.v1.EventServiceGrpc.EventServiceImplBase;
import dev.tidings.v1.Synced;
import dev.tidings.v1.WatchEventRequest;
import dev.tidings.v1.WatchEventResponse;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Consumer;

/** An EventService of which each watch plays the next script. */
final class ScriptedEvents extends EventServiceImplBase {
    final BlockingQueue<WatchEventRequest> requests = new LinkedBlockingQueue<>();
    private final BlockingQueue<Consumer<ServerCallStreamObserver<WatchEventResponse>>> scripts =
            new LinkedBlockingQueue<>();

    ScriptedEvents then(Consumer<ServerCallStreamObserver<WatchEventResponse>> script) {
        scripts.add(script);
        return this;
    }

    /** The next watch gets these messages and then the failure. */
    ScriptedEvents then(StatusRuntimeException failure, WatchEventResponse... messages) {
        return then(watch -> {
            send(watch, messages);
            watch.onError(failure);
        });
    }

    /** The next watch gets these messages and then OK. */
    ScriptedEvents thenOk(WatchEventResponse... messages) {
        return then(watch -> {
            send(watch, messages);
            watch.onCompleted();
        });
    }

    /** The next watch gets these messages and then nothing more. */
    ScriptedEvents thenSilence(WatchEventResponse... messages) {
        return then(watch -> send(watch, messages));
    }

    @Override
    public void watchEvent(WatchEventRequest request, StreamObserver<WatchEventResponse> observer) {
        requests.add(request);
        scripts.remove().accept((ServerCallStreamObserver<WatchEventResponse>) observer);
    }

    static void send(StreamObserver<WatchEventResponse> watch, WatchEventResponse... messages) {
        for (WatchEventResponse message : messages) {
            watch.onNext(message);
        }
    }

    static WatchEventResponse change(String token, ChangeKind kind, String id, long revision) {
        WatchEventResponse.Builder message = WatchEventResponse.newBuilder().setResumeToken(token);
        message.getChangeBuilder().setKind(kind).getEventBuilder().setEventId(id).setRevision(revision);
        message.getChangeBuilder().getEventBuilder().getCreateTimeBuilder().setSeconds(1);
        return message.build();
    }

    static WatchEventResponse initial(String token, String id, long revision) {
        return change(token, ChangeKind.CHANGE_KIND_INITIAL, id, revision);
    }

    static WatchEventResponse updated(String token, String id, long revision) {
        return change(token, ChangeKind.CHANGE_KIND_UPDATED, id, revision);
    }

    static WatchEventResponse synced(String token) {
        return WatchEventResponse.newBuilder()
                .setResumeToken(token)
                .setSynced(Synced.getDefaultInstance())
                .build();
    }

    static WatchEventResponse terminal(String token) {
        WatchEventResponse.Builder message = WatchEventResponse.newBuilder().setResumeToken(token);
        message.getClosingBuilder().setReason(ClosingReason.CLOSING_REASON_TERMINAL);
        return message.build();
    }

    static StatusRuntimeException failure(Code code, Message... details) {
        com.google.rpc.Status.Builder status = com.google.rpc.Status.newBuilder().setCode(code.getNumber());
        for (Message detail : details) {
            status.addDetails(Any.pack(detail));
        }
        return StatusProto.toStatusRuntimeException(status.build());
    }

    static ErrorInfo reason(String reason) {
        return ErrorInfo.newBuilder().setDomain("tidings").setReason(reason).build();
    }

    static RetryInfo retryAfter(long seconds) {
        RetryInfo.Builder info = RetryInfo.newBuilder();
        info.getRetryDelayBuilder().setSeconds(seconds);
        return info.build();
    }
}
