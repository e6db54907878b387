// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import static dev.tidings.v1.ChangeKind.CHANGE_KIND_CREATED;
import static dev.tidings.v1.ChangeKind.CHANGE_KIND_DELETED;
import static dev.tidings.v1.ChangeKind.CHANGE_KIND_EXPIRED;
import static dev.tidings.v1.ChangeKind.CHANGE_KIND_INITIAL;
import static dev.tidings.v1.ChangeKind.CHANGE_KIND_UPDATED;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidings.v1.ChangeKind;
import java.time.Instant;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class DeliveredTest {
    private static final Instant CREATED = Instant.ofEpochSecond(1);

    private final Delivered delivered = new Delivered();

    @Test
    void dropsWhatIsNotNewer() {
        assertTrue(delivered.add(change(CHANGE_KIND_INITIAL, "a", 3)));
        assertFalse(delivered.add(change(CHANGE_KIND_INITIAL, "a", 3)));
        assertFalse(delivered.add(change(CHANGE_KIND_UPDATED, "a", 2)));
        assertTrue(delivered.add(change(CHANGE_KIND_INITIAL, "a", 4)));
        assertTrue(delivered.add(change(CHANGE_KIND_INITIAL, "b", 1)));
    }

    @Test
    void tellsTheEndAtARevisionThatWasTold() {
        assertTrue(delivered.add(change(CHANGE_KIND_UPDATED, "a", 3)));
        assertTrue(delivered.add(change(CHANGE_KIND_EXPIRED, "a", 3)));
        assertFalse(delivered.add(change(CHANGE_KIND_EXPIRED, "a", 3)));
        assertFalse(delivered.add(change(CHANGE_KIND_DELETED, "a", 3)));
    }

    @Test
    void tellsAnEventThatWasCreatedAgain() {
        assertTrue(delivered.add(change(CHANGE_KIND_DELETED, "a", 9)));
        assertTrue(delivered.add(new Change(CHANGE_KIND_CREATED, "a", Optional.of(CREATED.plusSeconds(1)), 1)));
        assertFalse(delivered.add(change(CHANGE_KIND_UPDATED, "a", 10)));
    }

    @Test
    void comparesPartialChangesByRevision() {
        assertTrue(delivered.add(change(CHANGE_KIND_INITIAL, "a", 3)));
        assertFalse(delivered.add(partial("a", 3)));
        assertTrue(delivered.add(partial("a", 4)));
        assertFalse(delivered.add(change(CHANGE_KIND_UPDATED, "a", 4)));
        assertTrue(delivered.add(new Change(CHANGE_KIND_CREATED, "a", Optional.of(CREATED.plusSeconds(1)), 1)));
    }

    @Test
    void resetForgets() {
        delivered.add(change(CHANGE_KIND_INITIAL, "a", 3));
        delivered.clear();
        assertTrue(delivered.add(change(CHANGE_KIND_INITIAL, "a", 2)));
    }

    @Test
    void remembersTheEventsThatChangedLast() {
        assertTrue(delivered.add(change(CHANGE_KIND_UPDATED, "oldest", 1)));
        assertTrue(delivered.add(change(CHANGE_KIND_UPDATED, "old but busy", 1)));
        addOthers(Delivered.REMEMBERED_MAX - 2, CHANGE_KIND_UPDATED);
        assertTrue(delivered.add(change(CHANGE_KIND_UPDATED, "old but busy", 2)));

        assertTrue(delivered.add(change(CHANGE_KIND_UPDATED, "newest", 1)));

        assertTrue(delivered.add(change(CHANGE_KIND_UPDATED, "oldest", 1)));
        assertFalse(delivered.add(change(CHANGE_KIND_UPDATED, "old but busy", 2)));
    }

    @Test
    void remembersAWholeSnapshotUntilItsEnd() {
        delivered.add(change(CHANGE_KIND_INITIAL, "first", 1));
        addOthers(Delivered.REMEMBERED_MAX, CHANGE_KIND_INITIAL);
        assertFalse(delivered.add(change(CHANGE_KIND_INITIAL, "first", 1)));

        addOthers(Delivered.REMEMBERED_MAX, CHANGE_KIND_INITIAL);
        delivered.endSnapshot();

        assertTrue(delivered.add(change(CHANGE_KIND_UPDATED, "first", 1)));
    }

    private void addOthers(int count, ChangeKind kind) {
        for (int number = 0; number < count; number++) {
            delivered.add(change(kind, "other " + number, 1));
        }
    }

    private static Change change(ChangeKind kind, String id, long revision) {
        return new Change(kind, id, Optional.of(CREATED), revision);
    }

    private static Change partial(String id, long revision) {
        return new Change(CHANGE_KIND_UPDATED, id, Optional.empty(), revision);
    }
}
