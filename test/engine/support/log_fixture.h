// A delta log over files in memory, and what tests do to it.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "log/delta_log.h"
#include "log/log_reader.h"
#include "support/faulty_file_system.h"

namespace xtree {

class LogFixture {
 public:
  static constexpr uint64_t kCapture = 4711;
  LogFixture() { Reopen(); }
  // Forgets everything volatile.
  void Reopen() {
    log.reset();
    std::memset(static_cast<void*>(&shared), 0, sizeof(shared));
    log = std::make_unique<DeltaLog>(&shared, &fs, &budget, "log");
  }
  Status Append(uint64_t value, uint64_t lsn = 0, uint32_t payload_bytes = 40) {
    XT_RETURN_IF_ERROR(log->Reserve(payload_bytes));
    std::byte* to = log->AppendBegin(OpType::kInsert, 0, payload_bytes, lsn);
    std::memset(to, 0x5a, payload_bytes);
    std::memcpy(to, &value, sizeof(value));
    log->AppendEnd();
    return Status::Ok();
  }
  Status Commit() {
    XT_RETURN_IF_ERROR(log->Reserve(0));
    log->AppendCommit();
    return Status::Ok();
  }
  // Reads the log as recovery does, into `values`, and makes it ready for more.
  Status Recover(const LoadPolicy& policy, std::vector<uint64_t>* values, uint64_t start_seq = 1,
                 uint64_t capture = kCapture) {
    return Recover(policy, values, LogExtent{}, start_seq, capture);
  }
  Status Recover(const LoadPolicy& policy, std::vector<uint64_t>* values, const LogExtent& held,
                 uint64_t start_seq = 1, uint64_t capture = kCapture) {
    Reopen();
    shared.timeline = policy.current_timeline;
    LogReader reader(log.get());
    XT_RETURN_IF_ERROR(reader.Open(start_seq, capture));
    reader.Expect(held, held.bytes == 0);
    XT_RETURN_IF_ERROR(reader.Scan(policy));
    LogRecord record;
    values->clear();
    while (reader.Next(policy, &record)) {
      uint64_t value = 0;  // Where a fuzzer has made a record too short for one.
      if (record.payload_bytes >= sizeof(value)) std::memcpy(&value, record.payload, sizeof(value));
      values->push_back(value);
    }
    return reader.Finish();
  }
  std::byte* Block(uint32_t block) { return log->windows()->MapBlock(block).value(); }

  FaultyFileSystem fs;
  WindowBudget budget{100};
  LogShared shared;
  std::unique_ptr<DeltaLog> log;
};

inline std::vector<uint64_t> Sequence(uint64_t first, uint64_t end) {
  std::vector<uint64_t> values;
  for (uint64_t v = first; v < end; ++v) values.push_back(v);
  return values;
}

}  // namespace xtree
