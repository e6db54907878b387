// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Remembers what a watch has delivered, so that a snapshot begun again by a reconnect repeats nothing.
 *
 * <p>Of a snapshot under way it remembers every event; otherwise the {@link #REMEMBERED_MAX} that changed last.
 */
final class Delivered {
    static final int REMEMBERED_MAX = 10_000;

    private final Map<String, Change> newest = new LinkedHashMap<>(16, 0.75f, true);
    private boolean inSnapshot;

    /** Returns whether the change is to be delivered, and remembers it. */
    boolean add(Change change) {
        inSnapshot |= change.isInitial();
        Change last = newest.get(change.id());
        if (last != null && !change.isNewerThan(last)) {
            return false;
        }
        newest.put(change.id(), last == null ? change : change.withCreateTimeOf(last));
        forgetOldest();
        return true;
    }

    void endSnapshot() {
        inSnapshot = false;
        forgetOldest();
    }

    void clear() {
        newest.clear();
    }

    private void forgetOldest() {
        Iterator<String> oldest = newest.keySet().iterator();
        while (!inSnapshot && newest.size() > REMEMBERED_MAX) {
            oldest.next();
            oldest.remove();
        }
    }
}
