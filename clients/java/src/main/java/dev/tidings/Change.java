// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import com.google.protobuf.Timestamp;
import dev.tidings.v1.ChangeKind;
import java.time.Instant;
import java.util.Optional;

/**
 * What tells one change of an event or run from another.
 *
 * @param createTime tells two resources that had the same id one after the other; unset in partial changes
 */
record Change(ChangeKind kind, String id, Optional<Instant> createTime, long revision) {
    static Change of(ChangeKind kind, String id, boolean hasCreateTime, Timestamp created, long revision) {
        Instant createTime = Instant.ofEpochSecond(created.getSeconds(), created.getNanos());
        return new Change(kind, id, Optional.of(createTime).filter(time -> hasCreateTime), revision);
    }

    boolean isInitial() {
        return kind == ChangeKind.CHANGE_KIND_INITIAL;
    }

    boolean isNewerThan(Change last) {
        if (createTime.isPresent() && last.createTime.isPresent() && !createTime.equals(last.createTime)) {
            return createTime.get().isAfter(last.createTime.get());
        }
        // An expiry is told with the resource as it was last, at a revision that was told before.
        return revision > last.revision || revision == last.revision && isGone() && !last.isGone();
    }

    Change withCreateTimeOf(Change last) {
        return createTime.isPresent() ? this : new Change(kind, id, last.createTime, revision);
    }

    private boolean isGone() {
        return kind == ChangeKind.CHANGE_KIND_DELETED || kind == ChangeKind.CHANGE_KIND_EXPIRED;
    }
}
