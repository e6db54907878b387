// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import dev.tidings.v1.Event;
import dev.tidings.v1.EventChange;
import dev.tidings.v1.EventServiceGrpc;
import dev.tidings.v1.WatchEventRequest;
import dev.tidings.v1.WatchEventResponse;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.Optional;

/** The streams of WatchEvent. */
record EventSource(ManagedChannel channel, WatchEventRequest request) implements WatchSource<WatchEventResponse> {
    @Override
    public WatchStream<WatchEventResponse> open(String resumeToken, Optional<Duration> maxDuration) {
        WatchEventRequest.Builder next = request.toBuilder();
        if (!resumeToken.isEmpty()) {
            next.setResumeToken(resumeToken);
        }
        maxDuration.map(WatchSource::duration).ifPresent(next::setMaxDuration);
        return WatchStream.open(channel, EventServiceGrpc.getWatchEventMethod(), next.build());
    }

    @Override
    public Signal signal(WatchEventResponse message) {
        String token = message.getResumeToken();
        return switch (message.getMessageCase()) {
            case CHANGE -> new Signal(token, change(message.getChange()));
            case SYNCED -> new Signal(Signal.Kind.SYNCED, token);
            case RESET -> new Signal(Signal.Kind.RESET, token);
            case UNREADABLE -> new Signal(Signal.Kind.UNREADABLE, token);
            case CLOSING -> new Signal(token, message.getClosing());
            case BOOKMARK, MESSAGE_NOT_SET -> new Signal(Signal.Kind.OTHER, token);
        };
    }

    private static Change change(EventChange change) {
        Event event = change.getEvent();
        return Change.of(
                change.getKind(),
                event.getEventId(),
                event.hasCreateTime(),
                event.getCreateTime(),
                event.getRevision());
    }

    @Override
    public String resumeToken() {
        return request.getResumeToken();
    }

    @Override
    public Duration heartbeat() {
        return request.hasHeartbeatInterval()
                ? WatchSource.duration(request.getHeartbeatInterval())
                : DEFAULT_HEARTBEAT;
    }

    @Override
    public Optional<Duration> maxDuration() {
        return Optional.of(request)
                .filter(WatchEventRequest::hasMaxDuration)
                .map(limited -> WatchSource.duration(limited.getMaxDuration()));
    }
}
