// What the fuzzing of files consists of: seeds made from real indexes, mutations of them, and the
// targets that read the result. libFuzzer (fuzz_driver.cc) and the gtests (fuzz_test.cc) share it.
//
// An input is the two files of an index without their blocks of zeros:
//     flags:u32 data_bytes:u32 log_bytes:u32 zero:u32 (place:u32 zero:u32 content:u8[8192])...
// A place is a block number, in the log if kFuzzInLog is set. The flags say which checksums are made
// right before the files are opened: without that, hardly any damage would get past the first
// comparison.
//
// Threads: free functions; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "testing/sim_file_system.h"

namespace xtree {

using FuzzInput = std::vector<uint8_t>;

// The flags.
inline constexpr uint8_t kRepairData = 1;   // Stamped blocks of the data file get a right CRC.
inline constexpr uint8_t kRepairPlace = 2;  // They also say that they are where they are.
inline constexpr uint8_t kRepairLog = 4;    // Headers and frames of the log get right CRCs.
inline constexpr uint8_t kHostPolicy = 8;   // Opened as a host's index: LSNs and timelines count.
inline constexpr uint8_t kWriteToo = 16;    // If it opens: insertions, deletions, a checkpoint.

inline constexpr uint32_t kFuzzHeaderBytes = 16;
inline constexpr uint32_t kFuzzRecordBytes = 8 + 8192;
inline constexpr uint32_t kFuzzInLog = uint32_t{1} << 31;
inline constexpr uint32_t kFuzzInputBytesMax = 1u << 20;
inline constexpr uint32_t kFuzzFileBytesMax = 4u << 20;

// A sound index of some kind (the number chooses it), with operations in its log, as a program or
// a host has left it.
inline constexpr uint32_t kFuzzSeeds = 7;
FuzzInput MakeFuzzSeed(uint32_t number);

// Changes a few bytes, fields, sectors or blocks of an input.
void Mutate(SimRandom* random, FuzzInput* input);

// Opens the files and does everything with them that reads, and what kWriteToo asks for. Whatever
// the files hold: no crash, no endless loop. What is returned counts what happened, for a test that
// asks whether the mutations get anywhere.
struct FuzzOutcome {
  bool opened = false;
  bool searched = false;   // All scans ended without an error.
  bool written = false;
  uint64_t digest = 0;     // Of all ids and keys that the scans returned, in whatever order.
};
FuzzOutcome OpenFuzzedFiles(const uint8_t* input, size_t bytes);
// xtree-fsck's check of the same input. Returns whether it had no complaint.
bool CheckFuzzedFiles(const uint8_t* input, size_t bytes);
// The log alone: reads it as recovery does, standalone and under a host, goes on with it, and reads
// it again.
void ReadFuzzedLog(const uint8_t* input, size_t bytes);

}  // namespace xtree
