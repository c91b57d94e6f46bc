"""All campaigns by name."""

from tests.campaign import crashes, crowds, damage, network

CAMPAIGNS = {
    "kills": crashes.random_kills, "steps": crashes.kill_at_each_step, "writes": crashes.fail_each_write,
    "downloads": crashes.killed_downloads, "disk": crashes.small_disks, "network": network.faults,
    "cancels": network.cancels, "flips": damage.flips, "cuts": damage.cuts, "mutants": damage.mutants,
    "archives": damage.archives, "crowd": crowds.crowd, "readers": crowds.readers, "quota": crowds.quotas,
}
