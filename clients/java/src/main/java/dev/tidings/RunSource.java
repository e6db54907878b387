// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import dev.tidings.v1.Run;
import dev.tidings.v1.RunChange;
import dev.tidings.v1.RunServiceGrpc;
import dev.tidings.v1.WatchRunRequest;
import dev.tidings.v1.WatchRunResponse;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.Optional;

/** The streams of WatchRun. */
record RunSource(ManagedChannel channel, WatchRunRequest request) implements WatchSource<WatchRunResponse> {
    @Override
    public WatchStream<WatchRunResponse> open(String resumeToken, Optional<Duration> maxDuration) {
        WatchRunRequest.Builder next = request.toBuilder();
        if (!resumeToken.isEmpty()) {
            next.setResumeToken(resumeToken);
        }
        maxDuration.map(WatchSource::duration).ifPresent(next::setMaxDuration);
        return WatchStream.open(channel, RunServiceGrpc.getWatchRunMethod(), next.build());
    }

    @Override
    public Signal signal(WatchRunResponse message) {
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

    private static Change change(RunChange change) {
        Run run = change.getRun();
        return Change.of(
                change.getKind(),
                run.getRunId(),
                run.hasCreateTime(),
                run.getCreateTime(),
                run.getRevision());
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
                .filter(WatchRunRequest::hasMaxDuration)
                .map(limited -> WatchSource.duration(limited.getMaxDuration()));
    }
}
