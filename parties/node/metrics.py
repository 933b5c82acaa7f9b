"""Figures for Prometheus and a word on health: counts and states, no names of studies, no values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parties.node.states import Phase
from parties.node.store import RESERVE_BYTES
from parties.node.views import certificate_days, material_view

if TYPE_CHECKING:
    from parties.node.service import Node


def health(node: Node) -> tuple[bool, dict[str, Any]]:
    """Say whether the node can take part in studies, and what stands against it.

    Returns
    -------
    bool, dict
        Well or not; ``problems`` (a sentence each), peers with and without a link, disk, certificate.
    """
    days = certificate_days(node, node.clock())
    free = node.store.free_bytes()
    away = sorted(name for name, status in node.peers.status.items() if not status.connected)
    problems = []
    if days < 0:
        problems.append("the certificate has expired")
    if free < RESERVE_BYTES:
        problems.append("the disk is nearly full")
    if node.scheduler.trouble:
        problems.append(node.scheduler.trouble)
    if node.peers.status and len(away) == len(node.peers.status):
        problems.append("no other member can be reached")
    return not problems, {
        "ok": not problems,
        "problems": problems,
        "peers": {name: status.connected for name, status in sorted(node.peers.status.items())},
        "disk_free_bytes": free,
        "certificate_days": days,
    }


def figures(node: Node) -> bytes:
    """Return the node's figures as Prometheus reads them."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    class Collector:
        def collect(self) -> Any:
            yield GaugeMetricFamily(
                "sottovoce_up_seconds", "Since the start.", (node.clock() - node.started).total_seconds()
            )
            peers = GaugeMetricFamily("sottovoce_peer_connected", "Whether there is a link.", labels=["peer"])
            for name, status in sorted(node.peers.status.items()):
                peers.add_metric([name], float(status.connected))
            yield peers
            phases = GaugeMetricFamily("sottovoce_studies", "Studies by phase.", labels=["phase"])
            now = node.clock()
            found = [entry.phase(now) for entry in node.library.entries.values()]
            for phase in Phase:
                phases.add_metric([str(phase)], float(found.count(phase)))
            yield phases
            yield GaugeMetricFamily("sottovoce_attempts_running", "Workers now.", len(node.scheduler.runs))
            yield GaugeMetricFamily("sottovoce_studies_queued", "Waiting for their turn.", len(node.scheduler.queued))
            rounds = [run.progress.rounds for run in node.scheduler.runs.values() if run.progress is not None]
            yield GaugeMetricFamily("sottovoce_rounds_running", "Rounds so far, of what runs.", float(sum(rounds)))
            yield GaugeMetricFamily("sottovoce_disk_free_bytes", "In the state directory.", node.store.free_bytes())
            yield GaugeMetricFamily("sottovoce_certificate_days", "Until ours expires.", certificate_days(node, now))
            left = material_view(node)
            yield GaugeMetricFamily("sottovoce_material_batches", "Runs that material is ready for.", left["batches"])
            yield GaugeMetricFamily("sottovoce_material_bytes", "Sealed on the disk.", left["bytes"])
            yield GaugeMetricFamily("sottovoce_material_products", "Entries of products in it.", left["products"])
            yield GaugeMetricFamily("sottovoce_material_age_seconds", "Of the oldest.", left["age_seconds"])
            number, _ = node.audit.head
            yield GaugeMetricFamily("sottovoce_audit_entries", "In the audit log.", number + 1)
            events = CounterMetricFamily("sottovoce_events", "What has happened since the start.", labels=["event"])
            for what, count in sorted(node.counts.items()):
                events.add_metric([what], count)
            yield events
            doors = CounterMetricFamily("sottovoce_connections", "At the node's port.", labels=["what"])
            for what, count in sorted(node.door_counts.items()):
                doors.add_metric([what], count)
            yield doors

    registry = CollectorRegistry()
    registry.register(Collector())
    text: bytes = generate_latest(registry)
    return text
